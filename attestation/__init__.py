"""The vocabulary every room speaks: RATS and SPIFFE terms as plain values. No I/O, no clocks, no asyncio."""
