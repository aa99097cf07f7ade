"""The structs of `parquet.thrift`, format 2.12: number, name and type of every field. A fact sheet, not code."""

from __future__ import annotations

from policyguard.scan.formats.thrift import Structs

_UNIT = {"is_adjusted_to_utc": "bool", "unit": "TimeUnit"}


def _in_order(**fields: str | tuple[str]) -> dict[int, tuple[str, str | tuple[str]]]:
    return dict(enumerate(fields.items(), 1))


def _numbered(first: int, *names: str) -> dict[int, tuple[str, str | tuple[str]]]:
    return {number: (name.lower(), name) for number, name in enumerate(names, first)}


STRUCTS: Structs = {
    **{
        name: {}
        for name in (
            "String",
            "Map",
            "List",
            "Enum",
            "Date",
            "Unknown",
            "Json",
            "Bson",
            "Uuid",
            "Float16",
            "Millis",
            "Micros",
            "Nanos",
            "TypeOrder",
            "TotalOrder",
            "Block",
            "XxHash",
            "Uncompressed",
        )
    },
    "TimeUnit": _numbered(1, "Millis", "Micros", "Nanos"),
    "Decimal": _in_order(scale="i32", precision="i32"),
    "Time": _in_order(**_UNIT),
    "Timestamp": _in_order(**_UNIT),
    "Integer": _in_order(bit_width="byte", is_signed="bool"),
    "Variant": _in_order(specification_version="byte"),
    "Geometry": _in_order(crs="binary"),
    "Geography": _in_order(crs="binary", algorithm="i32"),
    "LogicalType": {
        **_numbered(1, "String", "Map", "List", "Enum", "Decimal", "Date", "Time", "Timestamp"),
        **_numbered(10, "Integer", "Unknown", "Json", "Bson", "Uuid", "Float16", "Variant", "Geometry", "Geography"),
    },
    "SchemaElement": _in_order(
        type="i32",
        type_length="i32",
        repetition_type="i32",
        name="binary",
        num_children="i32",
        converted_type="i32",
        scale="i32",
        precision="i32",
        field_id="i32",
        logical_type="LogicalType",
    ),
    "Statistics": _in_order(
        max="binary",
        min="binary",
        null_count="i64",
        distinct_count="i64",
        max_value="binary",
        min_value="binary",
        is_max_value_exact="bool",
        is_min_value_exact="bool",
        nan_count="i64",
    ),
    "SizeStatistics": _in_order(unencoded_bytes="i64", repetition_histogram=("i64",), definition_histogram=("i64",)),
    "BoundingBox": _in_order(**{f"{axis}{end}": "double" for axis in "xyzm" for end in ("min", "max")}),
    "GeospatialStatistics": _in_order(bbox="BoundingBox", geospatial_types=("i32",)),
    "KeyValue": _in_order(key="binary", value="binary"),
    "SortingColumn": _in_order(column_idx="i32", descending="bool", nulls_first="bool"),
    "PageEncodingStats": _in_order(page_type="i32", encoding="i32", count="i32"),
    "ColumnMetaData": _in_order(
        type="i32",
        encodings=("i32",),
        path_in_schema=("binary",),
        codec="i32",
        num_values="i64",
        total_uncompressed_size="i64",
        total_compressed_size="i64",
        key_value_metadata=("KeyValue",),
        data_page_offset="i64",
        index_page_offset="i64",
        dictionary_page_offset="i64",
        statistics="Statistics",
        encoding_stats=("PageEncodingStats",),
        bloom_filter_offset="i64",
        bloom_filter_length="i32",
        size_statistics="SizeStatistics",
        geospatial_statistics="GeospatialStatistics",
    ),
    "EncryptionWithFooterKey": {},
    "EncryptionWithColumnKey": _in_order(path_in_schema=("binary",), key_metadata="binary"),
    "ColumnCryptoMetaData": _in_order(footer_key="EncryptionWithFooterKey", column_key="EncryptionWithColumnKey"),
    "ColumnChunk": _in_order(
        file_path="binary",
        file_offset="i64",
        meta_data="ColumnMetaData",
        offset_index_offset="i64",
        offset_index_length="i32",
        column_index_offset="i64",
        column_index_length="i32",
        crypto_metadata="ColumnCryptoMetaData",
        encrypted_column_metadata="binary",
    ),
    "RowGroup": _in_order(
        columns=("ColumnChunk",),
        total_byte_size="i64",
        num_rows="i64",
        sorting_columns=("SortingColumn",),
        file_offset="i64",
        total_compressed_size="i64",
        ordinal="i16",
    ),
    "ColumnOrder": _in_order(type_order="TypeOrder", ieee754_total_order="TotalOrder"),
    "AesGcm": _in_order(aad_prefix="binary", aad_file_unique="binary", supply_aad_prefix="bool"),
    "EncryptionAlgorithm": _in_order(aes_gcm="AesGcm", aes_gcm_ctr="AesGcm"),
    "FileMetaData": _in_order(
        version="i32",
        schema=("SchemaElement",),
        num_rows="i64",
        row_groups=("RowGroup",),
        key_value_metadata=("KeyValue",),
        created_by="binary",
        column_orders=("ColumnOrder",),
        encryption_algorithm="EncryptionAlgorithm",
        footer_signing_key_metadata="binary",
    ),
    "DataPageHeader": _in_order(
        num_values="i32", encoding="i32", definition_encoding="i32", repetition_encoding="i32", statistics="Statistics"
    ),
    "IndexPageHeader": {},
    "DictionaryPageHeader": _in_order(num_values="i32", encoding="i32", is_sorted="bool"),
    "DataPageHeaderV2": _in_order(
        num_values="i32",
        num_nulls="i32",
        num_rows="i32",
        encoding="i32",
        definition_bytes="i32",
        repetition_bytes="i32",
        is_compressed="bool",
        statistics="Statistics",
    ),
    "PageHeader": _in_order(
        type="i32",
        uncompressed_page_size="i32",
        compressed_page_size="i32",
        crc="i32",
        data_page_header="DataPageHeader",
        index_page_header="IndexPageHeader",
        dictionary_page_header="DictionaryPageHeader",
        data_page_header_v2="DataPageHeaderV2",
    ),
    "PageLocation": _in_order(offset="i64", compressed_page_size="i32", first_row_index="i64"),
    "OffsetIndex": _in_order(page_locations=("PageLocation",), unencoded_bytes=("i64",)),
    "ColumnIndex": _in_order(
        null_pages=("bool",),
        min_values=("binary",),
        max_values=("binary",),
        boundary_order="i32",
        null_counts=("i64",),
        repetition_histograms=("i64",),
        definition_histograms=("i64",),
        nan_counts=("i64",),
    ),
    "BloomAlgorithm": _in_order(block="Block"),
    "BloomHash": _in_order(xxhash="XxHash"),
    "BloomCompression": _in_order(uncompressed="Uncompressed"),
    "BloomFilterHeader": _in_order(
        num_bytes="i32", algorithm="BloomAlgorithm", hash="BloomHash", compression="BloomCompression"
    ),
}
