"""What a workload was seen to do, as what it may do: watched, put together with other runs, and written down."""
