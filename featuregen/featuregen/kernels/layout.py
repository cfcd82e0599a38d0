"""The field numbers of the int64 tables that the kernels run: columns, operations, indexes and expressions.

A plan is data for one compiled program, so a new spec compiles nothing. All pointers are addresses (int64), and a row
of a table is handed to a kernel as its address, because that is the cheapest thing to pass and to compile.
"""

# A column: one Arrow array. Row i of an operation reads row i * STEP, so 0 broadcasts the one user of a request.
C_KIND, C_STEP, C_VALID, C_VALID_BIT = 0, 1, 2, 3
C_LIST = 4  # int32 offsets of a list or map, 0 for plain columns
C_DATA, C_TEXT = 5, 6  # values or bytes, of the keys of a map; int32 offsets of texts
C_CHILD_VALID, C_CHILD_BIT = 7, 8  # validity of elements (of the rows themselves in plain columns)
C_CHILD = 9  # address of another column, whose rows are the elements: items of a map, inner lists of a list
COLUMN_WIDTH = 10

KIND_TEXT, KIND_INT, KIND_FLOAT = 0, 1, 2

# An index: an open-addressing table of keys. Records: int64[n, 3] of key, size and a payload.
I_SLOTS, I_MASK, I_RECORDS = 0, 1, 2
INDEX_WIDTH = 3
RECORD_BYTES = 24
TEXT_BYTES = 40  # a gathered text: address, size, and 24 bytes for its decimal digits

# An expression. Spans: (address, length) of each variable's float64 values. READ and BY_ELEMENT are bits of variables.
X_CODE, X_COUNT, X_CONSTANTS, X_STACK, X_SPANS = 0, 1, 2, 3, 4
X_VARIABLES, X_COLUMNS, X_READ, X_BY_ELEMENT, X_PAIRS, X_FILL = 5, 6, 7, 8, 9, 10
EXPRESSION_WIDTH = 11

# An operation. A, B and C are addresses of columns, 0 if there is none.
O_KIND, O_ROWS, O_STD, O_SCRATCH, O_A, O_B, O_C = 0, 1, 2, 3, 4, 5, 6
# Texts: an encoder, the default's id (-1 if there is none), the prefix, a buffer for texts that are joined.
O_ENCODE, O_BUCKETS, O_UNKNOWN, O_DEFAULT, O_PREFIX, O_PREFIX_SIZE, O_BUFFER = 7, 8, 9, 10, 11, 12, 13
O_WORDS = 14  # an index: of a vocabulary, or of a value map
O_MULTIPLIER = 75  # of the buckets, for `bucket_of`
O_WORD_TEXT, O_WORD_DATA = 17, 18  # constant texts: int32 offsets and bytes
# Numbers: FOUND are those before the tail, WIDTH in a row unless they have offsets; NUMBERS are a and b of a rescaling.
O_WIDTH, O_FOUND, O_FOUND_OFFSETS, O_RESCALE, O_NUMBERS, O_RESCALE_BY = 19, 20, 21, 22, 23, 24
O_DEFAULTS, O_BOUNDS, O_BOUND_COUNT = 25, 26, 27
# What is written. VALUES, WEIGHTS and ELEMENTS are 0 if there are none.
O_IDS, O_OFFSETS, O_VALUES, O_WEIGHTS, O_ELEMENTS, O_ELEMENT_OFFSETS = 28, 29, 30, 31, 32, 33
# Operators. SHARED: all rows read one map. STATE: scratch, as each kernel says.
O_PARTS, O_PART_COUNT, O_MIX, O_EXPRESSION, O_METHOD, O_TAKES, O_SHOW, O_SHARED = 34, 35, 36, 37, 38, 39, 40, 41
O_STATE, O_TEXTS, O_MORE_TEXTS, O_QUERY, O_TITLE, O_KEPT, O_PLACES = 42, 43, 44, 45, 46, 47, 48
O_INDEX = 49  # an index that a call builds
O_REGIONS, O_REGION_SLOTS, O_REGION_RECORDS, O_LIVE, O_LIVE_INNER = 52, 53, 54, 55, 56
# Events.
O_TS, O_NOW, O_GROUP_OFFSETS, O_GROUP_POSITIONS, O_GROUP_STEP = 57, 58, 59, 60, 61
O_MAX_EVENTS, O_MAX_AGE, O_ACTIONS, O_ACTION_COUNT = 62, 63, 64, 65
O_WINDOWS, O_WINDOW_COUNT, O_COUNTS, O_LENGTH, O_PAD = 66, 67, 68, 69, 70
# The description of a call: addresses of exported arrays (of the structures, to release them), shapes and rows of the
# column table, and sizes, which are int64[rows, 2].
O_EXPORTS, O_SHAPES, O_COLUMNS, O_SIZES = 71, 72, 73, 74
OPERATION_WIDTH = 76

# What a row of the column table is of. ARRAY: number of an exported array, -1 for the level below the row before.
S_ARRAY, S_NESTED, S_IS_MAP, S_KIND, S_HAS_ELEMENTS = 0, 1, 2, 3, 4
SHAPE_WIDTH = 5

OP_ID, OP_COMBO, OP_RAW, OP_COMBINE, OP_LOOKUP, OP_MATCH, OP_EXPR, OP_OVERLAP, OP_KV_DOT, OP_WINDOW = range(10)
OP_SEQUENCE, OP_SELECT, OP_INDEX, OP_COUNT_COMBO, OP_COUNT_MATCH, OP_DESCRIBE, OP_RELEASE = range(10, 17)
ENCODE_HASH, ENCODE_IDENTITY, ENCODE_VOCAB = range(3)
RESCALE_NONE, RESCALE_LOG10, RESCALE_ZSCORE, RESCALE_MINMAX, RESCALE_EXPRESSION = range(5)
COMBINE_SUM, COMBINE_MEAN, COMBINE_MIN, COMBINE_MAX, COMBINE_COUNT, COMBINE_NONE = range(6)
TAKE_NUMBERS, TAKE_TEXTS, TAKE_VECTORS, TAKE_ALL, TAKE_COUNT = range(5)  # what becomes of what a map has
SHOW_PKEY, SHOW_SKEY, SHOW_KEY = 1, 2, 4
OVERLAP_QUERY_RATIO, OVERLAP_TITLE_RATIO, OVERLAP_CONTAIN, OVERLAP_EQUAL, OVERLAP_INDEX_OF = range(5)
OVERLAP_MIN_COVER, OVERLAP_MIN_DIST, OVERLAP_MAX_DIST, OVERLAP_AVG_DIST = range(5, 9)
AGG_COUNT, AGG_SUM, AGG_AVG, AGG_MIN, AGG_MAX, AGG_LAST = range(6)
SCRATCH_BYTES = 32  # the decimal text of one int64
