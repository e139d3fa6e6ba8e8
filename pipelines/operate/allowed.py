"""The lists of what SQL may hold: Spark's functions, and the classes of its parsed plans.

A name that is on no list is refused. Each was chosen by hand from Spark 4.2 and Delta 4.4. Left out
are functions that run code (reflect, try_reflect, java_method), that open a file or an address
named in their arguments (from_xml and schema_of_xml read a schema; xpath and its kin load a DTD,
from the network too; from_avro and from_protobuf read descriptors), and python_worker_logs.
"""

_FUNCTIONS = """
    abs acos acosh add_months aes_decrypt aes_encrypt aggregate and any any_value
    approx_count_distinct approx_percentile approx_top_k approx_top_k_accumulate
    approx_top_k_combine approx_top_k_estimate array array_agg array_append array_compact
    array_contains array_distinct array_except array_insert array_intersect array_join array_max
    array_min array_position array_prepend array_remove array_repeat array_size array_sort
    array_union arrays_overlap arrays_zip ascii asin asinh assert_true atan atan2 atanh avg base64
    between bigint bin binary bit_and bit_count bit_get bit_length bit_or bit_xor bitmap_and_agg
    bitmap_bit_position bitmap_bucket_number bitmap_construct_agg bitmap_count bitmap_or_agg
    bool_and bool_or boolean bround btrim cardinality case cast cbrt ceil ceiling char char_length
    character_length chr coalesce collate collation collations collect_list collect_set concat
    concat_ws contains conv convert_timezone corr cos cosh cot count count_if count_min_sketch
    covar_pop covar_samp crc32 csc cume_dist curdate current_catalog current_database current_date
    current_path current_schema current_time current_timestamp current_timezone current_user date
    date_add date_diff date_format date_from_unix_date date_part date_sub date_trunc dateadd
    datediff datepart day dayname dayofmonth dayofweek dayofyear decimal decode degrees dense_rank
    div double e element_at elt encode endswith equal_null every exists exp explode explode_outer
    expm1 extract factorial filter find_in_set first first_value flatten float floor forall
    format_number format_string from_csv from_json from_unixtime from_utc_timestamp get
    get_json_object getbit greatest grouping grouping_id hash hex histogram_numeric hll_sketch_agg
    hll_sketch_estimate hll_union hll_union_agg hour hypot if ifnull ilike in initcap inline
    inline_outer input_file_block_length input_file_block_start input_file_name instr int
    is_valid_utf8 is_valid_variant is_variant_null isnan isnotnull isnull json_array_length
    json_object_keys json_tuple kll_merge_agg_bigint kll_merge_agg_double kll_merge_agg_float
    kll_sketch_agg_bigint kll_sketch_agg_double kll_sketch_agg_float kll_sketch_get_n_bigint
    kll_sketch_get_n_double kll_sketch_get_n_float kll_sketch_get_quantile_bigint
    kll_sketch_get_quantile_double kll_sketch_get_quantile_float kll_sketch_get_rank_bigint
    kll_sketch_get_rank_double kll_sketch_get_rank_float kll_sketch_merge_bigint
    kll_sketch_merge_double kll_sketch_merge_float kll_sketch_to_string_bigint
    kll_sketch_to_string_double kll_sketch_to_string_float kurtosis lag last last_day last_value
    lcase lead least left len length levenshtein like listagg ln localtimestamp locate log log10
    log1p log2 lower lpad ltrim luhn_check make_date make_dt_interval make_interval make_time
    make_timestamp make_timestamp_ltz make_timestamp_ntz make_valid_utf8 make_ym_interval map
    map_concat map_contains_key map_entries map_filter map_from_arrays map_from_entries map_keys
    map_values map_zip_with mask max max_by md5 mean measure median min min_by minute mod mode
    monotonically_increasing_id month monthname months_between named_struct nanvl negative
    next_day not now nth_value ntile nullif nullifzero nvl nvl2 octet_length or overlay parse_json
    parse_url percent_rank percentile percentile_approx percentile_cont percentile_disc pi pmod
    posexplode posexplode_outer position positive pow power printf quarter quote radians
    raise_error rand randn random randstr range rank reduce regexp regexp_count regexp_extract
    regexp_extract_all regexp_instr regexp_like regexp_replace regexp_substr regr_avgx regr_avgy
    regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy repeat replace reverse
    right rint rlike round row_number rpad rtrim schema_of_csv schema_of_json schema_of_variant
    schema_of_variant_agg sec second sentences sequence session_user session_window sha sha1 sha2
    shiftleft shiftright shiftrightunsigned shuffle sign signum sin sinh size skewness slice
    smallint some sort_array soundex space spark_partition_id split split_part sql_keywords sqrt
    st_asbinary st_geogfromwkb st_geomfromwkb st_setsrid st_srid stack startswith std stddev
    stddev_pop stddev_samp str_to_map string string_agg struct substr substring substring_index
    sum tan tanh theta_difference theta_intersection theta_intersection_agg theta_sketch_agg
    theta_sketch_estimate theta_union theta_union_agg time time_bucket time_diff time_from_micros
    time_from_millis time_from_seconds time_to_micros time_to_millis time_to_seconds time_trunc
    timediff timestamp timestamp_micros timestamp_millis timestamp_seconds timestampadd
    timestampdiff tinyint to_binary to_char to_csv to_date to_json to_number to_time to_timestamp
    to_timestamp_ltz to_timestamp_ntz to_unix_timestamp to_utc_timestamp to_varchar
    to_variant_object to_xml transform transform_keys transform_values translate trim trunc
    try_add try_aes_decrypt try_avg try_cast try_divide try_element_at try_make_interval
    try_make_timestamp try_make_timestamp_ltz try_make_timestamp_ntz try_mod try_multiply
    try_parse_json try_parse_url try_subtract try_sum try_to_binary try_to_date try_to_number
    try_to_time try_to_timestamp try_url_decode try_validate_utf8 try_variant_get
    tuple_difference_double tuple_difference_integer tuple_difference_theta_double
    tuple_difference_theta_integer tuple_intersection_agg_double tuple_intersection_agg_integer
    tuple_intersection_double tuple_intersection_integer tuple_intersection_theta_double
    tuple_intersection_theta_integer tuple_sketch_agg_double tuple_sketch_agg_integer
    tuple_sketch_estimate_double tuple_sketch_estimate_integer tuple_sketch_summary_double
    tuple_sketch_summary_integer tuple_sketch_theta_double tuple_sketch_theta_integer
    tuple_union_agg_double tuple_union_agg_integer tuple_union_double tuple_union_integer
    tuple_union_theta_double tuple_union_theta_integer typeof ucase unbase64 unhex uniform
    unix_date unix_micros unix_millis unix_seconds unix_timestamp upper url_decode url_encode user
    uuid validate_utf8 var_pop var_samp variance variant_explode variant_explode_outer variant_get
    vector_avg vector_cosine_similarity vector_inner_product vector_l2_distance vector_norm
    vector_normalize vector_sum version weekday weekofyear when width_bucket window window_time
    xxhash64 year zeroifnull zip_with
"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
# Functions that read one argument, by its place from 0, as a data type. Spark also takes one in
# JSON there: it runs the SQL in its defaults, and Python imports the classes that it names.
TYPE_ARGUMENTS = {"from_csv": 1, "from_json": 1, "try_variant_get": 2, "variant_get": 2}
MAKERS_OF_TYPES = ("schema_of_csv", "schema_of_json")  # their answers are DDL

# A table's name that starts with one of these may be read as a format and a path.
_FORMATS = "avro binaryfile csv delta iceberg image jdbc json kafka libsvm orc parquet text xml"
FORMATS = frozenset(_FORMATS.split())

# Classes of Spark's parsed plans, by package: those of a query, then those of statements that
# describe something, then those that change tables.
_QUERY = {
    "catalyst": "AliasIdentifier FunctionIdentifier",
    "catalyst.plans.logical": """
        Aggregate Distinct Except Filter Generate GlobalLimit Intersect Join JoinHint LateralJoin
        LimitAll LocalLimit NearestByJoin Offset OneRowRelation Pivot Project
        RepartitionByExpression Sample SampleMethod$Bernoulli SampleMethod$System Sort SubqueryAlias
        Union Unpivot UnresolvedHint UnresolvedWith WithWindowDefinition
    """,
    "catalyst.analysis": """
        MultiAlias RelationTimeTravel UnresolvedAlias UnresolvedAttribute UnresolvedExtractValue
        UnresolvedFunction UnresolvedGenerator UnresolvedHaving UnresolvedInlineTable
        UnresolvedOrdinal UnresolvedPipeAggregateOrdinal UnresolvedQualify UnresolvedRegex
        UnresolvedRelation UnresolvedStar UnresolvedStarExceptOrReplace
        UnresolvedSubqueryColumnAliases UnresolvedTVFAliases UnresolvedTableValuedFunction
    """,
    "catalyst.expressions": """
        Add Alias And Ascending BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CaseWhen Cast Coalesce
        Collate Concat CreateNamedStruct Cube CurrentDate CurrentPath CurrentRow CurrentTime
        CurrentTimestamp CurrentUser Descending Divide EqualNullSafe EqualTo EvalMode Exists ExprId
        GreaterThan GreaterThanOrEqual GroupingSets Hex ILike In InSubquery IntegralDivide IsNotNull
        IsNotUnknown IsNull IsUnknown LambdaFunction LateralSubquery LessThan LessThanOrEqual Like
        LikeAll LikeAny ListQuery Lower Multiply NamedArgumentExpression NamePlaceholder Not
        NotLikeAll NotLikeAny NullsFirst NullsLast NumericEvalContext Or Overlay PipeExpression
        PipeOperator RLike RangeFrame Remainder Rollup RowFrame ScalarSubquery SemiStructuredExtract
        ShiftLeft ShiftRight ShiftRightUnsigned SortOrder SpecifiedWindowFrame StringLocate
        StringTrim StringTrimLeft StringTrimRight
        Substring Subtract TimestampAdd TimestampDiff UnaryMinus UnaryPositive UnboundedFollowing
        UnboundedPreceding UnresolvedCollation UnresolvedNamedLambdaVariable
        UnresolvedWindowExpression UnspecifiedFrame WindowExpression WindowSpecDefinition
        WindowSpecReference
    """,
    "catalyst.expressions.aggregate": "AggregateExpression AnyValue Complete First Last",
}
_DESCRIPTION = {
    "catalyst.plans.logical": """
        DescribeColumn DescribeFunction DescribeNamespace DescribeRelation DescribeTablePartition
        ShowColumns ShowCreateTable ShowFunctions ShowPartitions ShowTablePartition
        ShowTableProperties ShowTables ShowTablesExtended ShowViews
    """,
    "catalyst.analysis": """
        CurrentNamespace UnresolvedFunctionName UnresolvedNamespace UnresolvedTable
        UnresolvedTableOrView UnresolvedTableOrViewSearchPathMode$Ddl
        UnresolvedTableOrViewSearchPathMode$QueryLike UnresolvedView
    """,
    "catalyst.expressions": "AttributeReference",  # the columns of the answer
    "execution": "CodegenMode CostMode ExtendedMode FormattedMode SimpleMode",
    "execution.command": """
        DescribeQueryCommand DescribeRelationJsonCommand ExplainCommand ShowCatalogsCommand
        ShowCollationsCommand ShowCurrentNamespaceCommand ShowNamespacesCommand
    """,
    "delta.commands": "DescribeDeltaDetailCommand DescribeDeltaHistory",
}
_CHANGE = {
    "catalyst.plans.logical": """
        AddColumns AlterColumnSpec AlterColumnSyncIdentity AlterColumns AlterTableAddConstraint
        AlterTableClusterBy AlterTableDropConstraint AlterTableDropFeature AlterViewAs AnalyzeColumn
        AnalyzeTable Assignment ColumnDefinition CommentOnNamespace CommentOnTable CreateNamespace
        CreateTable CreateTableAsSelect CreateView DefaultValueExpression DeleteAction
        DeleteFromTable DropColumns DropNamespace DropTable DropView InsertAction
        InsertIntoStatement InsertReplaceOn InsertReplaceUsing InsertStarAction MergeIntoTable
        OptionList OverwriteByExpression QualifiedColType RenameColumn RenameTable ReplaceColumns
        ReplaceTable ReplaceTableAsSelect RestoreTableStatement SetTableProperties SetViewProperties
        TruncateTable UnresolvedTableSpec UnsetTableProperties UnsetViewProperties UpdateAction
        UpdateStarAction UpdateTable
    """,
    "catalyst.analysis": """
        UnresolvedFieldName UnresolvedFieldPosition UnresolvedIdentifier
    """,
    "catalyst.catalog": "ClusterBySpec",
    "catalyst": "TableIdentifier TimeTravel",
    "delta.commands": "DeltaOptimizeContext OptimizeTableCommand",
    "delta.skipping.clustering.temp": """
        AlterTableClusterBy ClusterByPlan ClusterBySpec ClusterByTransform
    """,
}


def _classes(*lists: dict[str, str]) -> frozenset[str]:
    """Return the full names of the classes, without the common start org.apache.spark.sql."""
    return frozenset(
        f"{package}.{name}"
        for packages in lists
        for package, names in packages.items()
        for name in names.split()
    )


READING = _classes(_QUERY, _DESCRIPTION)
CHANGING = READING | _classes(_CHANGE) | {"io.delta.tables.execution.VacuumTableCommand"}
