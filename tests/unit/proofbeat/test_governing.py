"""The policies that `demo` and `up` write: they state what was stated, so that a floor beside them keeps its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given

from policies.author.learning.learned import Learned, Run
from policies.model.load import load
from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.references import ReferenceValues
from policies.model.statements import stated
from proofbeat.demo.layout import Terms, policy
from proofbeat.documents import governing, to_yaml
from proofbeat.up.layout import Layout
from tests.unit.policies.test_merge import SPECS

FLOOR = """\
kind: AttestationPolicy
metadata: {name: floor, namespace: proofbeat-system}
spec:
  files: {caches: [/srv/cache/**], logs: ["*.log"], volatile: [/srv/scratch/**]}
"""
NOTHING = ReferenceValues(metadata=Metadata(name="references"))


@given(SPECS)
def test_a_policy_that_is_written_is_the_same_again_and_states_nothing_more(spec: Mapping[str, Any]) -> None:
    one = AttestationPolicy(metadata=Metadata(name="one"), spec=PolicySpec.model_validate(spec))
    again = AttestationPolicy.model_validate(yaml.safe_load(to_yaml(one)))
    assert again == one
    assert stated(again.spec).items() <= stated(one.spec).items()


def test_what_a_floor_exempts_stays_exempt_under_the_demos_own_policy(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(
        governing("web", "spiffe://demo.example/web", policy(Terms(), "web", "/srv"), NOTHING)
    )
    assert_the_floor_holds(tmp_path, "web")


def test_what_a_floor_exempts_stays_exempt_under_a_policy_that_up_learned(tmp_path: Path) -> None:
    layout = Layout.make(tmp_path, "http", "127.0.0.1:7000")
    run = Run(id="one", of="a test", machine="x86_64", seconds=1.0, quiet=1.0, needed=30.0)
    layout.write_policy(Learned(runs=(run,), include=("/srv",)), intruded=False, notified=False)
    assert_the_floor_holds(layout.policies, "app")


def assert_the_floor_holds(folder: Path, name: str) -> None:
    (folder / "floor.yaml").write_text(FLOOR)
    files = load([folder]).governing[name].policy.spec.files
    assert (files.caches, files.logs, files.volatile) == (("/srv/cache/**",), ("*.log",), ("/srv/scratch/**",))
    assert files.include == ("/srv",)
    assert files.within == ()
