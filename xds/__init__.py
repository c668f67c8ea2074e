"""A complete xDS server for one Envoy over a Unix domain socket.

It serves immutable snapshots by state-of-the-world and incremental discovery, pushes synchronously, tells its
caller what Envoy accepted or rejected, and decides who may connect. What the resources mean is the caller's business.
"""
