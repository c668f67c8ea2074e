# The decision that Proofbeat's appraisal makes of a workload's files, processes, coverage and rules, in Rego.
#
# data.references.files: path -> {accepted: [all that a file may be], digests: {digest: true}, mode}.
# data.references.executables: path -> {digest: true}.
# data.policy: include, layers, coverage, rules. input: what is claimed, files by path, and the summary that rules see.
package proofbeat

import rego.v1

# One pass over what is there; what is as it is referenced is not looked at further.
odd contains path if {
	some path, file in input.files
	not file in data.references.files[path].accepted
	file.kind != "d"
}

in_scope(path) if {
	some root in data.policy.include
	startswith(path, root)
}

finding contains ["file-unreferenced", path] if {
	some path in odd
	not data.references.files[path]
	in_scope(path)
}

finding contains ["file-modified", path] if {
	some path in odd
	reference := data.references.files[path]
	not reference.digests[input.files[path].digest]
}

finding contains ["file-attributes", path] if {
	some path in odd
	reference := data.references.files[path]
	reference.digests[input.files[path].digest]
	reference.mode != input.files[path].mode
}

finding contains ["file-missing", path] if {
	some path in object.keys(data.references.files) - object.keys(input.files)
	in_scope(path)
}

finding contains ["execution-foreign", kind.executable] if {
	some kind in input.summary.processes.kinds
	not data.references.executables[kind.executable]
}

finding contains ["execution-modified", kind.executable] if {
	some kind in input.summary.processes.kinds
	allowed := data.references.executables[kind.executable]
	not allowed[kind.digest]
}

finding contains ["layer-absent", layer] if {
	some layer, _ in data.policy.layers
	not input.layers[layer]
}

finding contains ["collector-dead", layer] if {
	some layer, _ in data.policy.layers
	some collector in input.summary.coverage.collectors
	collector.layer == layer
	not collector.running
}

finding contains ["layer-old", layer] if {
	some layer, asked in data.policy.layers
	input.layers[layer].age > asked.maxAge
}

finding contains ["layer-old", layer] if {
	some layer, asked in data.policy.layers
	input.layers[layer].fullAge > asked.fullMaxAge
}

finding contains ["coverage-weak", "coverage.grade"] if {
	not input.summary.coverage.grade in data.policy.coverage.grades
}

finding contains ["coverage-weak", "coverage.cutting"] if {
	not input.summary.coverage.cutting in data.policy.coverage.cuttings
}

finding contains ["coverage-weak", "coverage.isolation"] if {
	some guarantee in data.policy.coverage.isolation
	not guarantee in input.summary.coverage.isolation
}

finding contains ["rule-failed", name] if {
	some name in data.policy.rules
	not holds[name]
}

files := input.summary.files

processes := input.summary.processes

coverage := input.summary.coverage

holds.noRoot if processes.root == 0

holds.noPrivileged if processes.privileged == 0

holds.noSetuid if files.setuid == 0

holds.noWorldWritable if files.worldWritable == 0

holds.noDevices if files.others == 0

holds.fewFiles if files.count <= 20000

holds.someFiles if files.count >= 1

holds.youngFiles if files.age <= 60000

holds.readInFull if files.fullAge <= 3600000

holds.youngProcesses if processes.age <= 60000

holds.fewKinds if count(processes.kinds) <= 16

holds.fixedPrograms if {
	every kind in processes.kinds { startswith(kind.executable, "/usr/") }
}

holds.namedPrograms if {
	every kind in processes.kinds { not kind.deleted }
}

holds.sealed if {
	every kind in processes.kinds { sealed(kind) }
}

sealed(kind) if kind.noNewPrivileges

sealed(kind) if kind.seccomp == "filter"

holds.guarded if coverage.grade == "closed-by-guardian"

holds.cuts if coverage.cutting != "capped"

holds.apart if "distinct-user" in coverage.isolation

holds.nothingLost if {
	every collector in coverage.collectors { collector.lost == 0 }
}

holds.prompt if {
	every collector in coverage.collectors { collector.latency <= 50 }
}

holds.ours if startswith(input.summary.registration.spiffeId, "spiffe://example.org/")
