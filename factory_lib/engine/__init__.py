"""The embedded engine: chDB behind ClickHouse's HTTP interface, as one local process.

Only that process imports this package; everybody else speaks HTTP to it.
"""
