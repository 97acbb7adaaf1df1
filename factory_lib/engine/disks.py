"""Where the engine keeps parts of versions: a disk in a bucket and a bounded cache in front, as its own configuration.

Credentials are neither in it nor in a table's definition: the engine takes them from its environment, from a profile or
from the role of its machine, as the AWS clients do.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from factory_lib.owners import write_whole
from factory_lib.settings import retry_seconds, settings
from factory_lib.storage.store import store
from factory_lib.warehouse.bucket.blobs import DISK, PARTS, POLICY
from factory_lib.warehouse.bucket.head import Bound
from factory_lib.warehouse.s3_endpoint import request_tries, s3_endpoint

CONFIG = "engine.xml"

_XML = """<clickhouse>
    <storage_configuration>
        <disks>
            <{disk}>
                <type>object_storage</type>
                <object_storage_type>s3</object_storage_type>
                <metadata_type>local</metadata_type>
                <endpoint>{endpoint}</endpoint>
                <region>{region}</region>
                <use_environment_credentials>1</use_environment_credentials>
                <skip_access_check>1</skip_access_check>
                <s3_retry_attempts>{tries}</s3_retry_attempts>
            </{disk}>
            <{policy}>
                <type>cache</type>
                <disk>{disk}</disk>
                <path>{policy}</path>
                <max_size>{cache_bytes}</max_size>
                <cache_on_write_operations>1</cache_on_write_operations>
            </{policy}>
        </disks>
        <policies>
            <{policy}><volumes><main><disk>{policy}</disk></main></volumes></{policy}>
        </policies>
    </storage_configuration>
    <merge_tree>
        <!-- what a move that was broken off has copied to the other disk is no reason not to open a table -->
        <search_orphaned_parts_disks>none</search_orphaned_parts_disks>
    </merge_tree>
</clickhouse>
"""


def configured(home: Path) -> str:
    """Options for chDB, by which the engine of a data folder finds the bucket of that folder; none where it has none.

    A bucket that cannot be written is no reason not to start: what is there can be read.
    """
    bound = Bound.of(home)
    if bound is None:
        return ""
    text = disks_xml(bound.uri, *store().s3_address(bound.uri), settings().versions_cache_bytes)
    write_whole(home / CONFIG, text.encode())
    # What is written is soon read: as a part when it is loaded, as a parent when something is made of it.
    return f"&config-file={CONFIG}&enable_filesystem_cache_on_write_operations=1"


def disks_xml(uri: str, server: str, region: str, cache_bytes: int) -> str:
    """The configuration of disks and policies.

    Args:
        uri: `s3://bucket/prefix`.
        server: URL of the S3 API.
        region: for which requests are signed.
        cache_bytes: bound of the cache.
    """
    return _XML.format(
        disk=DISK,
        policy=POLICY,
        endpoint=escape(s3_endpoint(f"{uri}/{PARTS}", server)),
        region=escape(region),
        tries=request_tries(retry_seconds()),
        cache_bytes=cache_bytes,
    )
