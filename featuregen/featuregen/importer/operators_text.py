"""Feature types of fg.json that make texts of texts, and the custom operators that pyFG ships.

A custom operator is a shared library upstream. Those that come with pyFG have native counterparts; for any other there
is nothing to translate, only a function to write.
"""

import json
import re

from featuregen.importer.fgjson import FgFeature
from featuregen.importer.fields import MANY_TEXTS, T
from featuregen.importer.tails import Native, Translation, number_tail, refuse_float_id, text_tail

_STEPS = {2: "upper", 4: "lower", 8: "half_width", 16: "simplified", 32: "filter", 512: "split_chars"}
_DEFAULT_STEPS = 2 + 8 + 16 + 32
_CUSTOM = {
    "EditDistance": ("encoding",),
    "RegexReplace": ("regex_pattern", "replacement"),
    "SeqExpr": ("formula",),
}
_PARAMETERS = ("encoding", "regex_pattern", "replacement", "formula")


def bool_mask(t: Translation, f: FgFeature) -> Native:
    """The elements that a mask allows."""
    refuse_float_id(f)
    refs = f.texts("expression")
    if len(refs) != 2:
        raise f.error(f"expression has {len(refs)} fields", "write the values, then the mask")
    if not f.several(True):
        raise f.error("value_dim is 1, and a mask may leave several", "set value_dim: 0")
    value = t.fields.read(f.name, refs[0], MANY_TEXTS)
    mask = t.fields.read(f.name, refs[1], (T.STRING_LIST, T.INT_LIST, T.STRING, T.INT))
    return {"op": "bool_mask", "in": [value, mask]} | text_tail(t, f)


def tokenize(t: Translation, f: FgFeature) -> Native:
    """Token ids of a text."""
    if f.text_or("tokenizer_type", "bpe") != "bpe":
        hint = "convert the model to the JSON format of Hugging Face tokenizers, and set tokenizer_type: bpe"
        raise f.error(f"tokenizer_type '{f.text('tokenizer_type')}' is not supported", hint)
    kind = f.text_or("output_type", "word_id")
    if kind != "word_id":
        raise f.error(f"output_type '{kind}' is not supported", "known: word_id")
    name, content = t.file(f, f.text("vocab_file"))
    native: Native = {"op": "tokenize", "in": [t.fields.read(f.name, f.text("expression"), (T.STRING,))]}
    native["tokenizer"] = name
    if f.flag("stub_type"):
        return native | {"stub": True}
    native["encode"] = {"identityBuckets": _vocabulary(f, content)}
    if f.default():
        raise f.error(f"default_value '{f.default()}' would have to be split into tokens", 'set default_value: ""')
    return native


def _vocabulary(f: FgFeature, content: bytes) -> int:
    """Number of token ids: one more than the greatest in the file."""
    try:
        data = json.loads(content)
        vocab = data["model"]["vocab"]
        ids = list(vocab.values()) if isinstance(vocab, dict) else list(range(len(vocab)))
        ids += [token["id"] for token in data.get("added_tokens") or []]
        return max(ids) + 1
    except (ValueError, KeyError, TypeError) as error:
        hint = "give a file in the JSON format of Hugging Face tokenizers"
        raise f.error(f"vocab_file '{f.text('vocab_file')}' is no tokenizer", hint) from error


def text_normalizer(t: Translation, f: FgFeature) -> Native:
    """One spelling of a text."""
    for key in ("is_gbk_input", "is_gbk_output"):
        if f.flag(key):
            raise f.error(f"{key}: true is not supported", "send UTF-8, and set it to false")
    if f.has("max_length"):
        raise f.error("max_length leaves a longer text as it is, here it would be cut", "remove it")
    bits = f.whole("parameter", _DEFAULT_STEPS)
    unknown = bits & ~sum(_STEPS)
    if unknown:
        raise f.error(
            f"parameter {bits} has the unknown bit {unknown & -unknown}", f"known: {', '.join(map(str, _STEPS))}"
        )
    steps = [step for bit, step in _STEPS.items() if bits & bit]
    steps += ["remove_space"] if f.flag("remove_space") else []
    if not steps:
        raise f.error("parameter 0 does nothing", "remove the feature")
    native: Native = {"op": "text_normalizer", "in": [t.fields.read(f.name, f.text("expression"), (T.STRING,))]}
    native["steps"] = steps
    if f.has("stop_char_file"):
        content = t.read_file(f.text("stop_char_file"))
        if content is None:
            raise f.error(f"there is no file '{f.text('stop_char_file')}'", "say with --files in which folder it is")
        native["stopChars"] = "".join(content.decode().split())
    elif "filter" in steps:
        t.notes.append(f"feature '{f.name}': filter drops what is no letter, digit or space; pyFG has its own list")
    return native | text_tail(t, f)


def regex_replace(t: Translation, f: FgFeature) -> Native:
    """A text in which matches are replaced; several patterns are alternatives."""
    if not f.flag("replace_all", True):
        raise f.error(
            "replace_all: false is not supported", "anchor the pattern, e.g. ^(.*?)x(.*)$, so that it matches once"
        )
    if f.flag("icase"):
        raise f.error("icase: true is not supported", "write both cases into the pattern, e.g. [aA]")
    patterns = f.texts("regex_pattern")
    pattern = patterns[0] if len(patterns) == 1 else "|".join(f"(?:{one})" for one in patterns)
    replacement = f.text_or("replacement", "")
    if re.search(r"[\\$]", replacement):
        raise f.error(
            f"replacement '{replacement}' may name a group", "its syntax differs: write it natively, with \\1"
        )
    types = (T.STRING_LIST, T.STRING) if f.several(False) else (T.STRING,)
    native: Native = {"op": "regex_replace", "in": [t.fields.read(f.name, f.texts("expression")[0], types)]}
    native["pattern"] = pattern
    native |= {"replacement": replacement} if replacement else {}
    return native | text_tail(t, f)


def custom(t: Translation, f: FgFeature) -> Native:
    """EditDistance and RegexReplace; SeqExpr is a sequence."""
    name = f.text("operator_name")
    if name not in _CUSTOM:
        hint = "write it in Python as an entry point of featuregen.udfs, and the feature natively with op: custom"
        raise f.error(f"operator '{name}' is a shared library", hint)
    for key in _PARAMETERS:
        if f.has(key) and key not in _CUSTOM[name]:
            raise f.error(f"'{key}' has no meaning for {name}", f"it has {', '.join(_CUSTOM[name])}")
    if name == "RegexReplace":
        return regex_replace(t, f)
    if name == "SeqExpr":
        raise f.error("SeqExpr makes a sequence", "put it into a sequence, or set is_sequence: true")
    refs = [t.fields.read(f.name, ref, (T.STRING,)) for ref in f.texts("expression")]
    if len(refs) != 2:
        raise f.error(f"EditDistance of {len(refs)} fields", "it takes two")
    encoding = f.text_or("encoding", "latin")
    native: Native = {"op": "custom", "udf": "edit_distance", "type": "float", "in": refs}
    return native | {"parameters": {"encoding": encoding}} | number_tail(t, f)
