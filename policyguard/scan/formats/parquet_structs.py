"""The structs of `parquet.thrift`, format 2.12: number, name and type of every field. A table, not code.

A type in brackets is a list.
"""

from __future__ import annotations

from policyguard.scan.fact_sheets import parse_fields
from policyguard.scan.formats.thrift import Kind, Structs

_TABLE = """
String:
Map:
List:
Enum:
Date:
Unknown:
Json:
Bson:
Uuid:
Float16:
Millis:
Micros:
Nanos:
TypeOrder:
TotalOrder:
Block:
XxHash:
Uncompressed:
TimeUnit: millis Millis, micros Micros, nanos Nanos
Decimal: scale i32, precision i32
Time: is_adjusted_to_utc bool, unit TimeUnit
Timestamp: is_adjusted_to_utc bool, unit TimeUnit
Integer: bit_width byte, is_signed bool
Variant: specification_version byte
Geometry: crs binary
Geography: crs binary, algorithm i32
LogicalType: string String, map Map, list List, enum Enum, decimal Decimal, date Date, time Time, timestamp Timestamp,
  10 integer Integer, unknown Unknown, json Json, bson Bson, uuid Uuid, float16 Float16, variant Variant, geometry
  Geometry, geography Geography
SchemaElement: type i32, type_length i32, repetition_type i32, name binary, num_children i32, converted_type i32,
  scale i32, precision i32, field_id i32, logical_type LogicalType
Statistics: max binary, min binary, null_count i64, distinct_count i64, max_value binary, min_value binary,
  is_max_value_exact bool, is_min_value_exact bool, nan_count i64
SizeStatistics: unencoded_bytes i64, repetition_histogram [i64], definition_histogram [i64]
BoundingBox: xmin double, xmax double, ymin double, ymax double, zmin double, zmax double, mmin double, mmax double
GeospatialStatistics: bbox BoundingBox, geospatial_types [i32]
KeyValue: key binary, value binary
SortingColumn: column_idx i32, descending bool, nulls_first bool
PageEncodingStats: page_type i32, encoding i32, count i32
ColumnMetaData: type i32, encodings [i32], path_in_schema [binary], codec i32, num_values i64, total_uncompressed_size
  i64, total_compressed_size i64, key_value_metadata [KeyValue], data_page_offset i64, index_page_offset i64,
  dictionary_page_offset i64, statistics Statistics, encoding_stats [PageEncodingStats], bloom_filter_offset i64,
  bloom_filter_length i32, size_statistics SizeStatistics, geospatial_statistics GeospatialStatistics
EncryptionWithFooterKey:
EncryptionWithColumnKey: path_in_schema [binary], key_metadata binary
ColumnCryptoMetaData: footer_key EncryptionWithFooterKey, column_key EncryptionWithColumnKey
ColumnChunk: file_path binary, file_offset i64, meta_data ColumnMetaData, offset_index_offset i64, offset_index_length
  i32, column_index_offset i64, column_index_length i32, crypto_metadata ColumnCryptoMetaData,
  encrypted_column_metadata binary
RowGroup: columns [ColumnChunk], total_byte_size i64, num_rows i64, sorting_columns [SortingColumn], file_offset i64,
  total_compressed_size i64, ordinal i16
ColumnOrder: type_order TypeOrder, ieee754_total_order TotalOrder
AesGcm: aad_prefix binary, aad_file_unique binary, supply_aad_prefix bool
EncryptionAlgorithm: aes_gcm AesGcm, aes_gcm_ctr AesGcm
FileMetaData: version i32, schema [SchemaElement], num_rows i64, row_groups [RowGroup], key_value_metadata [KeyValue],
  created_by binary, column_orders [ColumnOrder], encryption_algorithm EncryptionAlgorithm,
  footer_signing_key_metadata binary
DataPageHeader: num_values i32, encoding i32, definition_encoding i32, repetition_encoding i32, statistics Statistics
IndexPageHeader:
DictionaryPageHeader: num_values i32, encoding i32, is_sorted bool
DataPageHeaderV2: num_values i32, num_nulls i32, num_rows i32, encoding i32, definition_bytes i32, repetition_bytes
  i32, is_compressed bool, statistics Statistics
PageHeader: type i32, uncompressed_page_size i32, compressed_page_size i32, crc i32, data_page_header DataPageHeader,
  index_page_header IndexPageHeader, dictionary_page_header DictionaryPageHeader, data_page_header_v2 DataPageHeaderV2
PageLocation: offset i64, compressed_page_size i32, first_row_index i64
OffsetIndex: page_locations [PageLocation], unencoded_bytes [i64]
ColumnIndex: null_pages [bool], min_values [binary], max_values [binary], boundary_order i32, null_counts [i64],
  repetition_histograms [i64], definition_histograms [i64], nan_counts [i64]
BloomAlgorithm: block Block
BloomHash: xxhash XxHash
BloomCompression: uncompressed Uncompressed
BloomFilterHeader: num_bytes i32, algorithm BloomAlgorithm, hash BloomHash, compression BloomCompression
"""


def _kind(text: str) -> Kind:
    return (text[1:-1],) if text.startswith("[") else text


STRUCTS: Structs = {
    name: {number: (field, _kind(kind)) for number, (field, kind) in fields.items()}
    for name, fields in parse_fields(_TABLE).items()
}
