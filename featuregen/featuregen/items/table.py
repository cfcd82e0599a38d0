"""The numbers of the fields of the three tables that the item kernels run: steps, dictionaries and Arrow arrays.

As in `featuregen.kernels.layout`, a step is a row of int64 and every pointer is an address, so that there is one
signature and a new plan compiles nothing. Two steps use the same number for another field if it means nothing to both.
"""

# A step. N: rows or elements; DONE: what the kernel says when it has run. NEEDED: it has not run, because it needs more
# than CAPACITY: bytes of scratch, or elements of what it writes.
T_KIND, T_N, T_DONE = 0, 1, 2
T_SOURCE, T_OUT, T_OFFSETS, T_WEIGHTS = 3, 4, 5, 6
T_TEXTS, T_DATA, T_VALID, T_BIT = 7, 8, 9, 10  # of an Arrow array that is encoded, or found
T_DICTIONARY, T_RECORDS, T_STRIDE, T_AT, T_SIZE = 11, 12, 13, 14, 15
T_CURRENT, T_FIRST, T_SCRATCH, T_POOL, T_WEIGHT_POOL = 16, 17, 18, 19, 20
T_DEFAULT, T_USER, T_IS_LIST, T_COMBINER, T_FLAG, T_OF_USER = 21, 22, 23, 24, 25, 25
T_PARTS, T_PART_COUNT, T_PREFIX, T_PREFIX_SIZE, T_BUFFER = 26, 27, 28, 29, 30
T_STD, T_BUCKETS, T_MIX, T_STAMP = 31, 32, 33, 34
T_CODES, T_CAPACITY, T_NEEDED = 35, 36, 37
T_SECOND, T_SECOND_STRIDE, T_SECOND_POOL, T_SECOND_DICTIONARY = 38, 39, 40, 41
T_BYTES, T_ELEMENT_VALID = 42, 43
T_STAMPS, T_NOW, T_ACTIONS, T_ACTION_COUNT = 44, 45, 46, 47  # of events; no ACTIONS: all count
T_MAX_EVENTS, T_MAX_AGE, T_WINDOWS, T_WINDOW_COUNT, T_EVENT_CODES = 48, 49, 50, 51, 52
T_MARKS = 53  # uint8 for each code, whatever the dictionary, all 0 between two steps
T_MULTIPLIER = 54  # of the buckets, for `bucket_of`
T_COLUMN, T_FLAGS, T_ROOM = 55, 56, 57  # of records that were copied: a field of all rows, their flags, and their room
T_EVENTS = 58  # address of the step that encodes the attribute which is counted by
T_WHOLE = 59  # address of what is 1 unless an element of a list is missing, or empty, or (LOAD_LISTED) has no id
STEP_WIDTH = 60

(
    ENCODE,
    REHASH,
    FIND,
    FOLLOW,
    STORE,
    STORE_SPANS,
    STORE_ID,
    STORE_LISTS,
    LINK,
    COPY,
    LOAD,
    LOAD_ID,
    LOAD_NUMBER,
    LOAD_IDS,
    LOAD_LISTED,
    MEASURE_TEXT,
    LOAD_TEXT,
    MEASURE_TEXTS,
    LOAD_TEXTS,
    COMBO,
    LOOKUP,
    MATCH,
    OVERLAP,
    ENCODE_EVENTS,
    COUNT,
) = range(25)

# A dictionary of texts: code c is the text [ENDS[c], ENDS[c + 1]). Code 0 is the empty text. A slot of the
# open-addressing table holds the upper half of the hash, and code + 1; LIMIT: at most so many codes before it grows.
D_SLOTS, D_MASK, D_COUNT, D_ENDS, D_TEXTS, D_LIMIT = 0, 1, 2, 3, 4, 5
DICTIONARY_WIDTH = 6

MEMO_SLOTS = 4096
"""Ids of a combo are remembered for the length of a request, by code, in so many places."""

SPARE = 8
"""Elements behind all others that a kernel may write to and read, so that it need not know where a list ends."""

LIST_WIDTH = 5
"""Numbers of a list of texts that is stored: see the kernel `store_lists`."""
