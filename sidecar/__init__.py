"""The attester beside the workload: rounds of evidence in, an identity for Envoy out, closed whenever in doubt."""
