"""The field numbers of the two int64 tables that the kernels run: columns and operations.

A plan is data for one compiled program, so a new spec compiles nothing. All pointers are addresses (int64).
"""

# A column: one Arrow array. Row i of an operation reads row i * STEP, so 0 broadcasts the one user of a request.
C_KIND, C_STEP, C_VALID, C_VALID_BIT = 0, 1, 2, 3
C_LIST = 4  # int32 offsets of a list or map, 0 for plain columns
C_DATA, C_TEXT = 5, 6  # values or bytes; int32 offsets of texts
C_CHILD_VALID, C_CHILD_BIT = 7, 8  # validity of elements (of the rows themselves in plain columns)
C_ITEMS, C_ITEMS_VALID, C_ITEMS_BIT = 9, 10, 11  # float64 values of a map
COLUMN_WIDTH = 12

KIND_TEXT, KIND_INT, KIND_FLOAT = 0, 1, 2

# An operation.
O_KIND, O_ROWS, O_STD, O_A, O_B = 0, 1, 2, 3, 4
O_ENCODE, O_BUCKETS, O_DEFAULT = 5, 6, 7  # default: an id, -1 if there is none
O_WORD_SLOTS, O_WORD_CAPACITY, O_WORD_TEXT, O_WORD_DATA, O_WORD_IDS = 8, 9, 10, 11, 12
O_RESCALE, O_NUMBERS, O_HAS_DEFAULT, O_BOUNDS, O_BOUND_COUNT = 13, 14, 15, 16, 17  # numbers: float64[a, b, default]
O_COMBINER = 18
O_PARTS, O_PART_COUNT, O_MIX, O_SPANS, O_BUFFER = 19, 20, 21, 22, 23
O_GROUP_OFFSETS, O_GROUP_POSITIONS, O_GROUP_STEP, O_TS, O_NOW = 24, 25, 26, 27, 28
O_MAX_EVENTS, O_MAX_AGE, O_ACTION, O_ACTION_COUNT, O_ACTION_TEXT, O_ACTION_DATA = 29, 30, 31, 32, 33, 34
O_WINDOWS, O_WINDOW_COUNT, O_COUNTS, O_SLOTS, O_SLOT_CAPACITY, O_DISTINCT = 35, 36, 37, 38, 39, 40
O_LENGTH, O_IDS, O_OFFSETS, O_VALUES, O_SCRATCH, O_UNKNOWN = 41, 42, 43, 44, 45, 46
OPERATION_WIDTH = 47

OP_ID, OP_RAW, OP_COMBO, OP_LOOKUP, OP_SEQUENCE, OP_WINDOW, OP_SELECT, OP_COUNT = 0, 1, 2, 3, 4, 5, 6, 7
ENCODE_HASH, ENCODE_IDENTITY, ENCODE_VOCAB = 0, 1, 2
RESCALE_NONE, RESCALE_LOG10, RESCALE_ZSCORE, RESCALE_MINMAX = 0, 1, 2, 3
COMBINERS = {"sum": 0, "mean": 1, "min": 2, "max": 3, "count": 4}
SCRATCH_BYTES = 32  # the decimal text of one int64
