"""Rules that are easy to get wrong, one sentence each: the oracle is asked, and the engines must agree with it."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featuregen.hash64 import farm64
from featuregen.oracle import compute_row
from tests.unit.featuregen.cases import plan_of

SOURCES: dict[str, Any] = {
    "user": {
        "key": "uid",
        "fields": {
            "text": "string",
            "texts": "list<string>",
            "more": "list<string>",
            "whole": "int",
            "wholes": "list<int>",
            "x": "float",
            "xs": "list<float>",
            "ys": "list<float>",
            "map": "map<string,float>",
            "labels": "map<string,string>",
            "vectors": "map<string,list<float>>",
            "nested": "map<string,map<string,float>>",
            "names": "map<string,map<string,string>>",
            "groups": "list<list<string>>",
            "paths": "list<list<float>>",
        },
    },
    "item": {"key": "iid", "fields": {"cate": "string", "tags": "list<string>"}},
    "behavior": {"log": {"fields": {"paid": "float", "rank": "int"}, "maxEvents": 5, "maxAge": "1h"}},
}
HASH = {"hashBuckets": 1000}


def f(feature: dict[str, Any], *others: dict[str, Any], **row: Any) -> Any:
    """The output `f` of a feature over user fields, or over flat columns (`behavior__log__ts`)."""
    plan = plan_of(SOURCES, [{"name": "f"} | feature, *others])
    columns = {name.replace("__", ".") if "__" in name else f"user.{name}": value for name, value in row.items()}
    result = compute_row(plan, {"now": 1000} | columns)
    return result["f"] if "f" in result else result


def hashed(*texts: str) -> list[int]:
    return [farm64(text.encode()) % 1000 for text in texts]


# Texts to ids


def test_a_prefix_is_hashed_with_the_text_and_not_with_the_default() -> None:
    feature = {"op": "id", "in": ["user.texts"], "prefix": "p_", "default": "z", "encode": HASH}
    assert f(feature, texts=["a", "", None]) == hashed("p_a")
    assert f(feature, texts=["", None]) == hashed("z")


def test_a_text_that_identity_does_not_take_is_dropped_and_the_default_comes_if_nothing_is_left() -> None:
    feature = {"op": "id", "in": ["user.texts"], "default": 3, "encode": {"identityBuckets": 10}}
    assert f(feature, texts=["7", "10", "-1", "x", "07", "1e0"]) == [7, 7]
    assert f(feature, texts=["10"]) == [3]


def test_of_equal_keys_in_a_map_the_last_one_counts_at_its_own_place() -> None:
    feature = {"op": "id", "in": ["user.map"], "weighted": True, "encode": HASH}
    entries = [("a", 1.0), ("b", 2.0), ("a", 3.0), ("", 4.0), (None, 5.0), ("c", math.nan)]
    assert f(feature, map=entries) == list(zip(hashed("b", "a", "c"), [2.0, 3.0, 1.0], strict=True))


def test_the_default_of_weighted_ids_weighs_one() -> None:
    feature = {"op": "id", "in": ["user.map"], "weighted": True, "encode": HASH, "default": "z"}
    assert f(feature, map={}) == [(hashed("z")[0], 1.0)]


def test_a_cross_has_the_first_field_as_outermost_loop() -> None:
    feature = {"op": "combo", "in": ["user.texts", "user.more", "user.whole"], "encode": HASH}
    assert f(feature, texts=["a", "b"], more=["x", "y"], whole=3) == hashed("a_x_3", "a_y_3", "b_x_3", "b_y_3")
    assert f(feature, texts=["a", "b"], more=["", None], whole=3) == []


# Numbers


def test_a_default_is_not_normalized_and_a_normalized_nan_is_missing() -> None:
    feature = {"op": "raw", "in": ["user.x"], "default": 7, "normalizer": {"kind": "expression", "expr": "log(x)"}}
    assert [f(feature, x=x)[0] for x in (1.0, 0.0, -1.0, math.nan, None)] == [0.0, -math.inf, 7.0, 7.0, 7.0]


def test_elements_of_a_vector_are_missing_one_by_one_and_a_vector_of_another_length_as_a_whole() -> None:
    feature = {"op": "raw", "in": ["user.xs"], "dim": 2, "defaults": [8, 9]}
    assert [f(feature, xs=xs) for xs in ([1.0, None], [math.nan, 2.0], [1.0], [1.0, 2.0, 3.0], None)] == [
        [1.0, 9.0],
        [8.0, 2.0],
        [8.0, 9.0],
        [8.0, 9.0],
        [8.0, 9.0],
    ]
    buckets = {"op": "raw", "in": ["user.xs"], "dim": 2, "boundaries": [2]}
    assert [f(buckets, xs=xs) for xs in ([1.0, None], [2.0, 2.0], [1.0])] == [[0], [1, 1], []]


def test_a_boundary_belongs_to_the_bucket_above_it() -> None:
    feature = {"op": "raw", "in": ["user.x"], "boundaries": [0.1, 0.3]}
    assert [f(feature, x=x)[0] for x in (0.1, 0.1 - 2**-56, 0.1 + 0.2, math.inf, -math.inf)] == [1, 0, 2, 2, 0]


def test_numbers_are_rounded_to_float32_once_at_the_end() -> None:
    assert f({"op": "raw", "in": ["user.x"]}, x=16777217.0) == [16777216.0]
    feature = {"op": "raw", "in": ["user.x"], "normalizer": {"kind": "expression", "expr": "x - 16777216"}}
    assert f(feature, x=16777217.0) == [1.0]


def test_combine_counts_what_takes_part() -> None:
    feature = {"op": "combine", "in": ["user.texts"], "valueMap": {"a": 1, "b": 4}}
    found = [f(feature | {"combiner": how}, texts=["a", "z", "b", "b", ""])[0] for how in ("count", "sum", "mean")]
    assert found == [3.0, 9.0, 3.0]


def test_a_combined_number_is_truncated_to_an_id_or_else_its_default_is() -> None:
    feature = {"op": "combine", "in": ["user.xs"], "encode": {"identityBuckets": 4}, "default": 2.9}
    assert [f(feature, xs=[x]) for x in (1.5, -0.5, 3.99, 4.0, -1.0, math.inf, None)] == [
        [1],
        [0],
        [3],
        [2],
        [2],
        [2],
        [2],
    ]


# Maps


def test_lookup_goes_through_the_keys_in_their_order_and_counts_a_repeated_key_twice() -> None:
    feature = {"op": "lookup", "map": "user.map", "key": "user.texts"}
    table = {"a": 1.0, "b": 2.0, "n": None}
    assert f(feature, map=table, texts=["b", "a", "b", "n", "z"]) == [5.0]
    assert f(feature | {"combiner": "none", "boundaries": [2]}, map=table, texts=["b", "a", "b", "n"]) == [1, 0, 1]
    assert f(feature | {"combiner": "none", "boundaries": [2], "default": 9}, map=table, texts=["n"]) == [1]


def test_lookup_shows_the_key_that_was_found() -> None:
    feature = {"op": "lookup", "map": "user.labels", "key": "user.texts", "encode": HASH, "show": ["key"]}
    table = {"a": "1", "b": "2", "e": "", "n": None}
    assert f(feature, labels=table, texts=["b", "z", "e", "n", "a"]) == hashed("b_2", "a_1")
    assert f(feature | {"prefix": "p_"}, labels=table, texts=["a"]) == hashed("p_a_1")
    assert f(feature | {"show": []}, labels=table, texts=["a"]) == hashed("1")


def test_vectors_of_a_map_are_combined_number_by_number() -> None:
    feature = {"op": "lookup", "map": "user.vectors", "key": "user.texts", "dim": 2, "combiner": "mean", "default": -1}
    table = {"a": [1.0, None], "b": [3.0, None], "short": [9.0]}
    assert f(feature, vectors=table, texts=["a", "b", "short"]) == [2.0, -1.0]


def test_match_without_a_key_takes_every_entry_in_the_order_of_the_map() -> None:
    table = {"p": {"s": "1", "t": ""}, "q": {"t": "2", "s": "3"}, "r": None}
    feature = {"op": "match", "map": "user.names", "show": ["skey", "pkey"], "encode": HASH}
    assert f(feature, names=table) == hashed("p_s_1", "q_t_2", "q_s_3")
    assert f(feature | {"pkey": "user.texts"}, names=table, texts=["q", "p"]) == hashed("q_t_2", "q_s_3", "p_s_1")
    assert f(feature | {"skey": "user.texts", "show": []}, names=table, texts=["s"]) == hashed("1", "3")
    assert f(feature | {"pkey": "user.texts"}, names=table, texts=[]) == [], "a missing key is no wildcard"


def test_kv_dot_takes_a_missing_weight_as_one_and_a_repeated_word_once() -> None:
    feature = {"op": "kv_dot", "query": "user.texts", "document": "user.map", "default": -1}
    assert f(feature, texts=["a", "a", "b"], map={"a": None, "b": 0.5}) == [1.5]
    assert f(feature, texts=["z"], map={"a": 1.0}) == [0.0], "nothing in common is a value"
    assert f(feature, texts=["", None], map={"a": 1.0}) == [-1.0]


# Expressions


def expr(text: str, **variables: Any) -> Any:
    feature = {"op": "expr", "in": [f"user.{name}" for name in variables], "expr": text, "default": 99}
    return f(feature, **variables)[0]


@pytest.mark.parametrize(
    ("text", "x", "expected"),
    [
        ("-x ^ 2", 3.0, -9.0),
        ("2 ^ 3 ^ 2 + 0 * x", 0.0, 512.0),
        ("x < 2 == 1", 1.0, 1.0),
        ("1 | 2 & x", 2.0, 3.0),
        ("x > 1 && x < 3 || x == 9 ? 5 : 6", 2.0, 5.0),
        ("x ? 1 : x > 0 ? 2 : 3", 0.0, 3.0),
        ("round(x)", 2.5, 3.0),
        ("round(x)", -2.5, -3.0),
        ("round(x)", 0.49999999999999994, 0.0),
        ("rint(x)", 2.5, 2.0),
        ("roundp(x, 1)", 0.25, 0.3),
        ("trunc(x)", -1.5, -1.0),
        ("mod(x, 3)", -7.0, -1.0),
        ("sign(x)", -0.1, -1.0),
        ("log(x)", 0.0, -math.inf),
        ("1 / x", 0.0, math.inf),
        ("x / 0", -1.0, -math.inf),
        ("x / 0", 0.0, 99.0),
        ("sqrt(x)", -1.0, 99.0),
        ("exp(x)", 1000.0, math.inf),
        ("x & 1", 1e19, 99.0),
        ("!x", 0.0, 1.0),
        ("isnan(x / 0)", 0.0, 1.0),
        ("min(3, x, 2)", 1.0, 1.0),
        ("max(x, 0 / 0)", 1.0, 99.0),
        ("avg(x, 2, 6)", 1.0, 3.0),
        ("sigmoid(x)", 0.0, 0.5),
        ("sphere_dist(0, 0, 180, x)", 0.0, 6371.0 * math.pi),
        ("haversine(0, 0, 90, x)", 0.0, 6371.0 * math.pi / 2),
    ],
)
def test_expressions(text: str, x: float, expected: float) -> None:
    assert expr(text, x=x) == pytest.approx(expected, rel=1e-7)


def test_functions_of_vectors() -> None:
    xs, ys = [1.0, 2.0, 4.0], [2.0, 4.0, 8.0]
    assert expr("len(xs) + reduce_prod(xs) - reduce_sum(xs)", xs=xs) == 4.0
    assert expr("dot(xs, ys)", xs=xs, ys=ys) == 42.0
    assert expr("corr(xs, ys)", xs=xs, ys=ys) == pytest.approx(1.0)
    assert expr("squared_norm(xs) - l2_norm(xs) ^ 2", xs=xs) == pytest.approx(0.0, abs=1e-9)
    assert expr("variance(xs) * 3", xs=xs) == pytest.approx(expr("pop_variance(xs) * 2", xs=xs)), "upstream's names"
    assert expr("pop_std_dev(xs)", xs=[1.0]) == 99.0
    assert expr("dot(xs, ys)", xs=xs, ys=[1.0]) == 99.0


def test_vectors_are_computed_element_by_element_and_single_numbers_hold_for_all() -> None:
    feature = {"op": "expr", "in": ["user.xs", "user.x"], "expr": "xs + x", "dim": 2, "default": -1}
    assert f(feature, xs=[1.0, 2.0], x=0.5) == [1.5, 2.5]
    assert f(feature, xs=[1.0], x=0.5) == [1.5, 1.5]
    assert f(feature, xs=[1.0, 2.0, 3.0], x=0.5) == [-1.0, -1.0]
    assert f(feature, xs=[1.0, None], x=0.5) == [-1.0, -1.0], "one missing element makes all missing"
    assert f(feature | {"fillMissing": True}, xs=[1.0, None], x=None) == [1.0, 0.0]
    assert f(feature | {"fillMissing": True}, xs=[], x=0.5) == [0.5, 0.5]


def test_a_variable_that_the_expression_does_not_read_may_be_missing() -> None:
    assert expr("x + 1", x=1.0, whole=None) == 2.0


# Overlap


def overlap(method: str, query: list[str], title: list[str]) -> float:
    feature = {"op": "overlap", "query": "user.texts", "title": "user.more", "method": method, "default": -9}
    return float(f(feature, texts=query, more=title)[0])


def test_overlap_counts_repeated_words() -> None:
    assert overlap("query_common_ratio", ["a", "a", "z"], ["a", "b"]) == pytest.approx(2 / 3)
    assert overlap("title_common_ratio", ["a"], ["a", "b", "a", "c"]) == 0.5
    assert overlap("is_equal", ["a"], []) == -9


def test_proximity_is_of_the_query_words_that_the_title_has() -> None:
    title = ["a", "x", "b", "a", "c"]
    assert overlap("proximity_min_cover", ["c", "a"], title) == 2.0
    assert overlap("proximity_min_cover", ["c", "a", "nowhere"], title) == 0.0, "the title lacks a word"
    assert overlap("proximity_min_cover", ["a", "b", "c"], title) == 3.0
    assert overlap("proximity_max_dist", ["a", "b", "c"], title) == 2.0
    assert overlap("proximity_avg_dist", ["a", "b", "c"], title) == pytest.approx((1 + 2 + 1) / 3)
    assert overlap("proximity_max_dist", ["a", "nowhere", "c"], title) == 1.0, "of those that it has"
    assert overlap("proximity_min_dist", ["a", "a"], title) == 5.0, "one word has no distance: the title's length"
    assert overlap("proximity_avg_dist", ["nowhere", "never"], title) == 6.0, "no word: one more"


# Text operators


def test_a_mask_of_another_length_masks_everything() -> None:
    feature = {"op": "bool_mask", "in": ["user.texts", "user.more"], "encode": HASH}
    assert f(feature, texts=["a", "b", "c"], more=["TRUE", "1", None]) == hashed("a", "b")
    assert f(feature, texts=["a", "b"], more=["true"]) == []


def test_a_text_is_cut_after_all_steps_and_before_it_is_split() -> None:
    steps = ["split_chars", "remove_space", "lower", "half_width"]
    feature = {"op": "text_normalizer", "in": ["user.text"], "steps": steps, "maxLength": 3, "encode": HASH}
    assert f(feature, text="\uff21 b\u3000C d") == hashed("a", "b", "c")


def test_traditional_characters_become_simplified_and_signs_are_dropped() -> None:
    feature = {"op": "text_normalizer", "in": ["user.text"], "encode": HASH}
    assert f(feature, text="漢字!ﬁ ab-1") == hashed("汉字FI AB1")
    assert f(feature, text="!!") == []


@pytest.mark.parametrize(
    ("pattern", "replacement", "text", "expected"),
    [
        ("x*", "-", "abxd", "-a-b-d-"),
        ("(a)|b", r"[\1]", "ab", "[a][]"),
        ("a$", "", "a\na", "a\n"),
        (r"\s", "_", "a\x0bb c", "a\x0bb_c"),
        (r"\d+", r"<\0>", "a12٣", "a<12>٣"),
        ("a.b", "", "a\nb", "a\nb"),
        ("(?s)a.b", "x", "a\nb", "x"),
        ("[^a-c-]+", "", "a-dxb", "a-b"),
        (r"\bé", "x", "é", "é"),
        ("(?P<n>a+?)(?:b|c){1,2}", r"\1", "aabcb", "aab"),
    ],
)
def test_regular_expressions_mean_what_re2_makes_of_them(
    pattern: str, replacement: str, text: str, expected: str
) -> None:
    import pyarrow.compute as pc

    from featuregen.oracle.texts import replace_all

    assert replace_all(pattern, replacement, text) == expected
    assert pc.replace_substring_regex(text, pattern, replacement).as_py() == expected


_PARTS = [
    "a",
    "b",
    ".",
    r"\d",
    r"\s",
    r"\w",
    r"\W",
    "[ab]",
    "[^a]",
    r"[\d-]",
    "(a|b)",
    "(?:ab)",
    "^",
    "$",
    r"\b",
    "|",
    "é",
]
_REPEATS = ["", "*", "+", "?", "*?", "+?", "??", "{2}", "{1,}", "{0,2}?"]


@given(
    st.lists(st.tuples(st.sampled_from(_PARTS), st.sampled_from(_REPEATS)), min_size=1, max_size=5),
    st.text("ab1 é\n_-", max_size=8),
)
def test_random_patterns_agree_with_re2(parts: list[tuple[str, str]], text: str) -> None:
    import pyarrow.compute as pc

    from featuregen.compiler.regex import RegexError, parse_regex
    from featuregen.oracle.texts import replace_all

    pattern = "".join(part + repeat for part, repeat in parts)
    try:
        parse_regex(pattern)
    except RegexError:
        return
    assert replace_all(pattern, r"<\0>", text) == pc.replace_substring_regex(text, pattern, r"<\0>").as_py(), pattern


def test_a_format_of_a_missing_field_is_missing() -> None:
    feature = {"op": "str_format", "in": ["user.text", "user.whole"], "format": "{whole}{{{text}}}", "encode": HASH}
    assert f(feature, text="a", whole=0) == hashed("0{a}")
    assert f(feature, text="", whole=0) == []


def test_edit_distance_counts_code_points_or_bytes() -> None:
    feature = {"op": "custom", "udf": "edit_distance", "type": "float", "in": ["user.text", "user.uid"], "default": -1}
    assert f(feature, text="裙子", uid="连衣裙") == [3.0]
    assert f(feature | {"parameters": {"encoding": "latin"}}, text="é", uid="e") == [2.0]
    assert f(feature, text="", uid="e") == [-1.0]


# Features of features


def test_another_feature_sees_a_number_after_its_default_and_before_its_boundaries() -> None:
    price = {"name": "x2", "op": "raw", "in": ["user.x"], "boundaries": [5], "default": 3}
    reader = {"op": "expr", "in": ["feature.x2"], "expr": "x2 + 1"}
    assert f(reader, price, x=None) == [4.0]
    without = {key: value for key, value in price.items() if key != "default"}
    assert f(reader | {"default": -7}, without, x=None) == [-7.0]


def test_another_feature_sees_a_text_before_its_prefix_and_default() -> None:
    short = {"name": "short", "op": "str_slice", "in": ["user.text"], "stop": 1, "prefix": "p_", "default": "z"}
    reader = {"op": "combo", "in": ["feature.short", "user.whole"], "encode": HASH}
    assert f(reader, short | {"encode": HASH}, text="abc", whole=1) == hashed("a_1")
    assert f(reader, short | {"encode": HASH}, text="", whole=1) == []


# Events


def test_sums_of_windows_are_running_totals_from_the_smallest_window_up() -> None:
    feature = {"op": "window", "behavior": "log", "agg": "sum", "value": "event.paid", "windows": ["10ms", "1s"]}
    paid = [1e16, 1.0, 1.0]
    found = f(feature, behavior__log__ts=[1, 995, 999], behavior__log__paid=paid)
    assert found == [2.0, pytest.approx(2.0 + 1e16, rel=1e-7)]


def test_aggregates_of_no_number_are_missing_but_for_count_and_sum() -> None:
    row = {"behavior__log__ts": [998, 999], "behavior__log__paid": [None, math.nan]}
    base = {"op": "window", "behavior": "log", "windows": ["1s"]}
    assert f(base, **row) == [2.0]
    assert f(base | {"agg": "sum", "value": "event.paid"}, **row) == [0.0]
    for agg in ("avg", "min", "max", "last"):
        assert f(base | {"agg": agg, "value": "event.paid"}, **row) == [0.0]
        assert f(base | {"agg": agg, "value": "event.paid", "default": -1}, **row) == [-1.0]


def test_last_is_of_the_last_event_that_arrived_and_has_a_number() -> None:
    feature = {"op": "window", "behavior": "log", "agg": "last", "value": "event.paid", "windows": ["1s"]}
    row = {"behavior__log__ts": [999, 900, 900], "behavior__log__paid": [1.0, 2.0, None]}
    assert f(feature, **row) == [2.0]


def test_elements_of_a_sequence_stay_aligned() -> None:
    fields = [
        {"in": "event.rank", "encode": {"identityBuckets": 5}},
        {"in": "event.paid"},
        {"name": "age", "expr": "now - ts + paid", "vars": ["event.paid"], "default": -1},
        {"in": "item.tags", "encode": HASH},
    ]
    row = {
        "behavior__log__ts": [10, 20, 30],
        "behavior__log__rank": [4, 5, None],
        "behavior__log__paid": [0.5, None, 1.0],
        "behavior__log__tags": [["a", "b"], [], None],
    }
    assert f({"op": "sequence", "behavior": "log", "length": 5, "fields": fields}, **row) == {
        "f__rank": [4, 0, 0],
        "f__paid": [0.5, 0.0, 1.0],
        "f__age": [990.5, -1.0, 971.0],
        "f__tags": [hashed("a", "b"), hashed("0"), hashed("0")],
    }


def test_a_prefix_in_a_sequence_is_hashed_with_the_text_and_not_with_the_default() -> None:
    fields = [{"in": "user.texts", "prefix": "p_", "default": "z", "encode": HASH}]
    feature = {"op": "sequence", "length": 5, "fields": fields}
    assert f(feature, texts=["a", None, "z"]) == {"f__texts": hashed("p_a", "z", "p_z")}


def test_an_empty_sequence_has_one_missing_element_if_it_is_padded() -> None:
    fields = [{"in": "event.paid", "boundaries": [-1, 1]}, {"in": "item.tags", "encode": HASH}]
    feature = {"op": "sequence", "behavior": "log", "length": 5, "fields": fields}
    assert f(feature) == {"f__paid": [], "f__tags": []}
    assert f(feature | {"padEmpty": True}) == {"f__paid": [1], "f__tags": [hashed("0")]}


def test_lists_of_another_length_than_the_first_are_missing_in_a_plain_sequence() -> None:
    fields = [
        {"in": "user.texts", "encode": HASH},
        {"in": "user.xs", "default": 7},
        {"in": "user.paths", "dim": 2, "default": 7},
        {"name": "sum", "expr": "x + xs", "vars": ["user.x", "user.xs"], "default": -1},
    ]
    feature = {"op": "sequence", "length": 2, "fields": fields}
    paths = [[1.0, 2.0], [1.0], [1.0, None]]
    assert f(feature, texts=["a", "", "c"], xs=[1.0, 2.0, 3.0], paths=paths, x=1.0) == {
        "f__texts": hashed("a", "0"),
        "f__xs": [1.0, 2.0],
        "f__paths": [[1.0, 2.0], [7.0, 7.0]],
        "f__sum": [2.0, 3.0],
    }
    assert f(feature, texts=["a"], xs=[1.0, 2.0], paths=None, x=1.0) == {
        "f__texts": hashed("a"),
        "f__xs": [7.0],
        "f__paths": [[7.0, 7.0]],
        "f__sum": [-1.0],
    }


# Files


def test_words_of_a_file_have_their_line_or_their_own_number_as_id(tmp_path: Path) -> None:
    import hashlib

    (tmp_path / "words").write_bytes(b"a\nb\nc\n")
    files = {"words": {"sha256": hashlib.sha256(b"a\nb\nc\n").hexdigest()}}
    encode = {"vocabFile": "words", "unknown": 3, "vocabSize": 4}
    plan = plan_of(SOURCES, [{"name": "f", "op": "id", "in": ["user.texts"], "encode": encode}], files=files)
    assert compute_row(plan, {"user.texts": ["c", "z", "a"]}, files=tmp_path) == {"f": [2, 3, 0]}
