/* The fast path through plain requests: what every ordinary SDK sends is checked, cut into items, searched and read in C.

   Plain is what the walker can read without a doubt: known fields with their wire types, shortest tags and lengths, valid UTF-8,
   ids of the right length, envelope fields in their order. Anything else is "not plain": `open`, `Shapes.read` and `parts`
   return None, `Keys.find` marks the item with every bit, and the Python path decides. So there is one implementation of errors
   and of odd input, and what is wrong here can only cost time. Every read is bounded by the cursor's end; nothing is written but
   new Python objects.

   In order: the schema; checking fields; `open`, also in slices; `parts` and `cut`, which cut an item at its fields, `pair` and
   `put_pair`, which read and write an attribute. _plain_items.c asks items what is in them, _plain_ids.c chooses them by trace id;
   they are part of the same module. Longer than other files: all of it is one check by one schema.

   collector.otlp.plain is the Python side. Field numbers: opentelemetry-proto, trace.proto, logs.proto, metrics.proto,
   common.proto. */

#include "_plain.h"
#include "_text.h"

const struct field SCHEMA[MESSAGES][FIELDS] = {
    [ANY_VALUE] = {[1] = {TEXT, 0}, [2] = {VARINT, 0}, [3] = {VARINT, 0}, [4] = {FIXED64, 0}, [5] = {MESSAGE, ARRAY},
                   [6] = {MESSAGE, KEY_VALUES}, [7] = {BYTES, 0}},
    [ARRAY] = {[1] = {MESSAGE, ANY_VALUE}},
    [KEY_VALUES] = {[1] = {MESSAGE, KEY_VALUE}},
    [KEY_VALUE] = {[1] = {TEXT, 0}, [2] = {MESSAGE, ANY_VALUE}},
    [RESOURCE] = {[1] = {MESSAGE, KEY_VALUE}, [2] = {VARINT, 0}, [3] = {MESSAGE, ENTITY}},
    [ENTITY] = {[1] = {TEXT, 0}, [2] = {TEXT, 0}, [3] = {TEXT, 0}, [4] = {TEXT, 0}},
    [SCOPE] = {[1] = {TEXT, 0}, [2] = {TEXT, 0}, [3] = {MESSAGE, KEY_VALUE}, [4] = {VARINT, 0}},
    [SPAN] = {[1] = {BYTES, 0}, [2] = {BYTES, 0}, [3] = {TEXT, 0}, [4] = {BYTES, 0}, [5] = {TEXT, 0}, [6] = {VARINT, 0},
              [7] = {FIXED64, 0}, [8] = {FIXED64, 0}, [9] = {MESSAGE, KEY_VALUE}, [10] = {VARINT, 0}, [11] = {MESSAGE, EVENT},
              [12] = {VARINT, 0}, [13] = {MESSAGE, LINK}, [14] = {VARINT, 0}, [15] = {MESSAGE, STATUS}, [16] = {FIXED32, 0}},
    [EVENT] = {[1] = {FIXED64, 0}, [2] = {TEXT, 0}, [3] = {MESSAGE, KEY_VALUE}, [4] = {VARINT, 0}},
    [LINK] = {[1] = {BYTES, 0}, [2] = {BYTES, 0}, [3] = {TEXT, 0}, [4] = {MESSAGE, KEY_VALUE}, [5] = {VARINT, 0},
              [6] = {FIXED32, 0}},
    [STATUS] = {[2] = {TEXT, 0}, [3] = {VARINT, 0}},
    [RECORD] = {[1] = {FIXED64, 0}, [2] = {VARINT, 0}, [3] = {TEXT, 0}, [5] = {MESSAGE, ANY_VALUE}, [6] = {MESSAGE, KEY_VALUE},
                [7] = {VARINT, 0}, [8] = {FIXED32, 0}, [9] = {BYTES, 0}, [10] = {BYTES, 0}, [11] = {FIXED64, 0},
                [12] = {TEXT, 0}},
    [METRIC] = {[1] = {TEXT, 0}, [2] = {TEXT, 0}, [3] = {TEXT, 0}, [5] = {MESSAGE, GAUGE}, [7] = {MESSAGE, SUM},
                [9] = {MESSAGE, HISTOGRAM}, [10] = {MESSAGE, EXPONENTIAL}, [11] = {MESSAGE, SUMMARY}, [12] = {MESSAGE, KEY_VALUE}},
    [GAUGE] = {[1] = {MESSAGE, NUMBER_POINT}},
    [SUM] = {[1] = {MESSAGE, NUMBER_POINT}, [2] = {VARINT, 0}, [3] = {VARINT, 0}},
    [HISTOGRAM] = {[1] = {MESSAGE, HISTOGRAM_POINT}, [2] = {VARINT, 0}},
    [EXPONENTIAL] = {[1] = {MESSAGE, EXPONENTIAL_POINT}, [2] = {VARINT, 0}},
    [SUMMARY] = {[1] = {MESSAGE, SUMMARY_POINT}},
    [NUMBER_POINT] = {[2] = {FIXED64, 0}, [3] = {FIXED64, 0}, [4] = {FIXED64, 0}, [5] = {MESSAGE, EXEMPLAR}, [6] = {FIXED64, 0},
                      [7] = {MESSAGE, KEY_VALUE}, [8] = {VARINT, 0}},
    [HISTOGRAM_POINT] = {[2] = {FIXED64, 0}, [3] = {FIXED64, 0}, [4] = {FIXED64, 0}, [5] = {FIXED64, 0}, [6] = {FIXED64S, 0},
                         [7] = {FIXED64S, 0}, [8] = {MESSAGE, EXEMPLAR}, [9] = {MESSAGE, KEY_VALUE}, [10] = {VARINT, 0},
                         [11] = {FIXED64, 0}, [12] = {FIXED64, 0}},
    [EXPONENTIAL_POINT] = {[1] = {MESSAGE, KEY_VALUE}, [2] = {FIXED64, 0}, [3] = {FIXED64, 0}, [4] = {FIXED64, 0},
                           [5] = {FIXED64, 0}, [6] = {VARINT, 0}, [7] = {FIXED64, 0}, [8] = {MESSAGE, BUCKETS},
                           [9] = {MESSAGE, BUCKETS}, [10] = {VARINT, 0}, [11] = {MESSAGE, EXEMPLAR}, [12] = {FIXED64, 0},
                           [13] = {FIXED64, 0}, [14] = {FIXED64, 0}},
    [SUMMARY_POINT] = {[2] = {FIXED64, 0}, [3] = {FIXED64, 0}, [4] = {FIXED64, 0}, [5] = {FIXED64, 0}, [6] = {MESSAGE, QUANTILE},
                       [7] = {MESSAGE, KEY_VALUE}, [8] = {VARINT, 0}},
    [BUCKETS] = {[1] = {VARINT, 0}, [2] = {VARINTS, 0}},
    [QUANTILE] = {[1] = {FIXED64, 0}, [2] = {FIXED64, 0}},
    [EXEMPLAR] = {[2] = {FIXED64, 0}, [3] = {FIXED64, 0}, [4] = {BYTES, 0}, [5] = {BYTES, 0}, [6] = {FIXED64, 0},
                  [7] = {MESSAGE, KEY_VALUE}},
};

static int is_plain(struct cursor in, enum message message, unsigned depth);

/* Whether a KeyValue is plain: as is_plain, with a short way for what nearly all are, a key and one text or number. */
static inline int is_key_value(struct cursor in, unsigned depth) {
    struct cursor rest = in, key, value, text;
    if (!step(&rest, KEY_TAG, &key) || !step(&rest, VALUE_TAG, &value) || rest.at < rest.end) {
        return is_plain(in, KEY_VALUE, depth);
    }
    if (!is_text(key.at, key.end)) return 0;
    rest = value;
    if (step(&rest, TEXT_TAG, &text) && rest.at == rest.end) return is_text(text.at, text.end);
    return is_plain(value, ANY_VALUE, depth + 1);
}

/* Whether there are whole varints. */
static int is_varints(struct cursor in) {
    uint64_t value;
    while (in.at < in.end) {
        if (!read_varint(&in, &value)) return 0;
    }
    return 1;
}

/* Whether the field is what the schema says. */
static inline int fits(const struct part *part, enum message message, unsigned depth) {
    const struct field *field = &SCHEMA[message][part->number];
    switch (field->kind) {
    case VARINT: return part->wire == 0;
    case FIXED64: return part->wire == 1;
    case FIXED32: return part->wire == 5;
    case BYTES: return part->wire == 2;
    case TEXT: return part->wire == 2 && is_text(part->content.at, part->content.end);
    case VARINTS: return part->wire == 2 && is_varints(part->content);
    case FIXED64S: return part->wire == 2 && (part->content.end - part->content.at) % 8 == 0;
    case MESSAGE:
        if (part->wire != 2) return 0;
        if (field->message == KEY_VALUE) return is_key_value(part->content, depth + 1);
        return is_plain(part->content, field->message, depth + 1);
    default: return 0;
    }
}

static int is_plain(struct cursor in, enum message message, unsigned depth) {
    struct part part;
    if (depth > DEEPEST) return 0;
    while (in.at < in.end) {
        if (!read_part(&in, &part) || !fits(&part, message, depth)) return 0;
    }
    return 1;
}

/* Whether a span is plain and its two ids stand in it once, complete and not zero; `trace` points to the first. */
static int is_span(struct cursor in, const uint8_t **trace) {
    struct part part;
    unsigned ids = 0;
    while (in.at < in.end) {
        if (!read_part(&in, &part) || !fits(&part, SPAN, 0)) return 0;
        if (part.number > 2) continue;
        size_t size = part.number == 1 ? TRACE_ID : SPAN_ID;
        if (ids & part.number || (size_t)(part.content.end - part.content.at) != size || is_zero(part.content.at, size)) return 0;
        ids |= part.number;
        if (part.number == 1) *trace = part.content.at;
    }
    return ids == 3;
}

/* Whether a log record is plain and each of its ids stands in it at most once, empty or complete. */
static int is_record(struct cursor in) {
    struct part part;
    unsigned ids = 0;
    while (in.at < in.end) {
        if (!read_part(&in, &part) || !fits(&part, RECORD, 0)) return 0;
        if (part.number != 9 && part.number != 10) continue;
        unsigned id = part.number - 8;
        ptrdiff_t size = part.content.end - part.content.at;
        if (ids & id || (size != 0 && size != (id == 1 ? TRACE_ID : SPAN_ID))) return 0;
        ids |= id;
    }
    return 1;
}

/* Whether a metric is plain; `points` grows by its data points, field 1 of whatever data it holds. */
static int is_metric(struct cursor in, size_t *points) {
    struct part part, point;
    while (in.at < in.end) {
        if (!read_part(&in, &part)) return 0;
        enum message data = SCHEMA[METRIC][part.number].message;
        if (data < GAUGE || data > SUMMARY) {
            if (!fits(&part, METRIC, 0)) return 0;
            continue;
        }
        if (part.wire != 2) return 0;
        while (part.content.at < part.content.end) {
            if (!read_part(&part.content, &point) || !fits(&point, data, 1)) return 0;
            *points += point.number == 1;
        }
    }
    return 1;
}

/* What stands around the members of a group or a scope: its field 1 and its field 3. */
struct header {
    struct cursor first, last;
};

static PyObject *header_bytes(const struct header *header) {
    Py_ssize_t first = header->first.end - header->first.at, last = header->last.end - header->last.at;
    PyObject *out = PyBytes_FromStringAndSize(NULL, first + last);
    if (out) {
        if (first) memcpy(PyBytes_AsString(out), header->first.at, (size_t)first);
        if (last) memcpy(PyBytes_AsString(out) + first, header->last.at, (size_t)last);
    }
    return out;
}

enum { FAILED = -1, ODD = 0, GOOD = 1, PAUSED = 2 };
enum { MOST_ITEMS = 100000, MOST_LEVELS = 1000, MOST_BYTES = 512 << 10, MEMBER_COST = 64 };

/* The request (level 0), a group (1) or a scope (2) that is being read: what is left of it, how far it came in its fields, what
   stands around its members, its members so far and, in a scope, what is noted of each: a span's trace id, a metric's points. */
struct level {
    struct cursor in;
    unsigned reached;
    struct header header;
    PyObject *members, *notes;
};

/* A request that is being read: its signal, 1 traces, 2 logs or 3 metrics, how many items, groups and scopes it had so far, and the levels
   that are open; `deep` is the innermost one. */
struct opening {
    int signal;
    unsigned items, levels, deep;
    struct level at[3];
};

static int enter(struct opening *opening, struct cursor in) {
    if (++opening->levels > MOST_LEVELS) return ODD;
    struct level *level = &opening->at[++opening->deep];
    level->in = in;
    level->members = PyList_New(0);
    level->notes = opening->deep == 2 ? PyList_New(0) : NULL;
    return level->members && (level->notes || opening->deep == 1) ? GOOD : FAILED;
}

static void clear(struct level *level) {
    Py_XDECREF(level->members);
    Py_XDECREF(level->notes);
    memset(level, 0, sizeof *level);
}

/* Hand what the innermost level has become to the one around it. */
static int leave(struct opening *opening) {
    struct level *level = &opening->at[opening->deep--];
    PyObject *bytes = header_bytes(&level->header), *whole = NULL;
    if (bytes) whole = level->notes ? PyTuple_Pack(3, bytes, level->members, level->notes) : PyTuple_Pack(2, bytes, level->members);
    Py_XDECREF(bytes);
    clear(level);
    return put(opening->at[opening->deep].members, whole) ? GOOD : FAILED;
}

/* Append a trace id; the spans of a trace mostly stand together and then share one object. */
static int put_id(PyObject *ids, const uint8_t *trace) {
    Py_ssize_t count = PyList_Size(ids);
    PyObject *last = count ? PyList_GetItem(ids, count - 1) : NULL;
    if (last && !memcmp(PyBytes_AsString(last), trace, TRACE_ID)) return PyList_Append(ids, last) == 0;
    return put(ids, bytes_of(trace, trace + TRACE_ID));
}

static inline int read_item(struct cursor in, struct opening *opening, struct level *scope) {
    const uint8_t *trace = NULL;
    size_t points = 0;
    if (++opening->items > MOST_ITEMS) return ODD;
    if (!(opening->signal == 1 ? is_span(in, &trace) : opening->signal == 2 ? is_record(in) : is_metric(in, &points))) return ODD;
    if (!put(scope->members, bytes_of(in.at, in.end))) return FAILED;
    if (opening->signal == 3) return put(scope->notes, PyLong_FromSize_t(points)) ? GOOD : FAILED;
    return !trace || put_id(scope->notes, trace) ? GOOD : FAILED;
}

/* One field of a group or a scope: field 1 at most once and first, then its members, then field 3 at most once. */
static int read_field(struct opening *opening, struct level *level, const struct part *part) {
    if (part->number > 3 || part->number < level->reached || (part->number == level->reached && part->number != 2)) return ODD;
    level->reached = part->number;
    if (part->number == 2 && opening->deep == 1) return enter(opening, part->content);
    if (part->content.end - part->content.at > MOST_BYTES) return ODD;
    if (part->number == 2) return read_item(part->content, opening, level);
    if (part->number == 1) {
        if (!is_plain(part->content, opening->deep == 1 ? RESOURCE : SCOPE, 0)) return ODD;
        level->header.first = (struct cursor){part->begin, part->content.end};
    } else {
        if (!is_text(part->content.at, part->content.end)) return ODD;
        if (part->content.at < part->content.end) level->header.last = (struct cursor){part->begin, part->content.end};
    }
    return GOOD;
}

/* Read on until about `budget` bytes are done. Returns FAILED with an exception set, ODD, GOOD when all is read, or PAUSED. */
static int advance(struct opening *opening, Py_ssize_t budget) {
    struct part part;
    int found = GOOD;
    while (found == GOOD) {
        struct level *level = &opening->at[opening->deep];
        if (level->in.at == level->in.end) {
            if (!opening->deep) return GOOD;
            found = leave(opening);
            continue;
        }
        if (budget <= 0) return PAUSED;
        if (!read_part(&level->in, &part) || part.wire != 2) return ODD;
        unsigned deep = opening->deep;
        if (deep) {
            found = read_field(opening, level, &part);
        } else {
            found = part.number == 1 ? enter(opening, part.content) : ODD;
        }
        budget -= MEMBER_COST;
        if (opening->deep == deep) budget -= part.content.end - part.content.at; /* else it is still to be read */
    }
    return found;
}

static void clear_all(struct opening *opening) {
    for (int n = 0; n < 3; n++) clear(&opening->at[n]);
}

/* Begin to read a body. Returns 0 with an exception set. */
static int begin(struct opening *opening, PyObject *arguments, PyObject **body) {
    memset(opening, 0, sizeof *opening);
    if (!PyArg_ParseTuple(arguments, "iS", &opening->signal, body)) return 0;
    if (opening->signal < 1 || opening->signal > 3) {
        PyErr_SetString(PyExc_ValueError, "signal is 1, 2 or 3");
        return 0;
    }
    opening->at[0].in.at = (const uint8_t *)PyBytes_AsString(*body);
    opening->at[0].in.end = opening->at[0].in.at + PyBytes_Size(*body);
    return (opening->at[0].members = PyList_New(0)) != NULL;
}

/* What `advance` came to, for Python: the groups, None when it is not plain, False when it goes on. */
static PyObject *outcome(struct opening *opening, int found) {
    if (found == PAUSED) Py_RETURN_FALSE;
    PyObject *groups = found == GOOD ? Py_NewRef(opening->at[0].members) : NULL;
    clear_all(opening);
    if (found != ODD) return groups;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(open_doc, "open(signal, body, /)\n--\n\n"
                       "The groups of a plain request: [(header, [(header, items, notes)])]; None when it is not plain.\n"
                       "`signal`: 1 traces, with the trace id of each item; 2 logs, with nothing; 3 metrics, with the data\n"
                       "points of each item.");

static PyObject *plain_open(PyObject *Py_UNUSED(module), PyObject *arguments) {
    struct opening opening;
    PyObject *body;
    if (!begin(&opening, arguments, &body)) return NULL;
    return outcome(&opening, advance(&opening, PY_SSIZE_T_MAX));
}

/* A body that is read in slices: it lives as long as its capsule. */
struct slices {
    struct opening opening;
    PyObject *body;
};

static const char SLICES[] = "collector.otlp._plain.slices";

static void slices_free(PyObject *capsule) {
    struct slices *slices = PyCapsule_GetPointer(capsule, SLICES);
    clear_all(&slices->opening);
    Py_DECREF(slices->body);
    PyMem_Free(slices);
}

PyDoc_STRVAR(begin_doc, "begin(signal, body, /)\n--\n\nThe same as `open` for a large body, read by calls of `proceed`.");

static PyObject *plain_begin(PyObject *Py_UNUSED(module), PyObject *arguments) {
    struct slices *slices = PyMem_Calloc(1, sizeof *slices);
    if (!slices) return PyErr_NoMemory();
    PyObject *capsule = NULL;
    if (begin(&slices->opening, arguments, &slices->body)) capsule = PyCapsule_New(slices, SLICES, slices_free);
    if (capsule) {
        Py_INCREF(slices->body);
    } else {
        clear_all(&slices->opening);
        PyMem_Free(slices);
    }
    return capsule;
}

PyDoc_STRVAR(proceed_doc, "proceed(begun, size, /)\n--\n\n"
                          "Read on by about `size` bytes: False when there is more to read, else what `open` returns.");

static PyObject *plain_proceed(PyObject *Py_UNUSED(module), PyObject *arguments) {
    PyObject *capsule;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "On", &capsule, &size)) return NULL;
    struct slices *slices = PyCapsule_GetPointer(capsule, SLICES);
    if (!slices) return NULL;
    if (!slices->opening.at[0].members) {
        PyErr_SetString(PyExc_ValueError, "it is read to its end");
        return NULL;
    }
    return outcome(&slices->opening, advance(&slices->opening, size));
}

/* Whether a field of an item holds no text: a number, or an id of the right size. */
static int holds_no_text(const struct part *part, int signal) {
    ptrdiff_t size = part->content.end - part->content.at;
    if (part->wire != 2) return 1;
    if (signal == 1 && part->number == 1) return size == TRACE_ID;
    if (signal == 1) return (part->number == 2 || part->number == 4) && size == SPAN_ID;
    return part->number == 9 ? size == TRACE_ID : part->number == 10 && size == SPAN_ID;
}

enum { MOST_HITS = 64 };

/* Where a search found something: the bit of its pattern, and the end of the match in the item. */
struct hit {
    uint64_t bit;
    Py_ssize_t end;
};

/* The hits of a list of (pattern, end). Returns their number, FAILED when it holds anything else, too many or too large ones. */
static int read_hits(PyObject *list, struct hit *hits) {
    Py_ssize_t count = PyList_Size(list);
    if (count > MOST_HITS) return FAILED;
    for (Py_ssize_t n = 0; n < count; n++) {
        PyObject *pair = PyList_GetItem(list, n);
        if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2) return FAILED;
        PyObject *first = PyTuple_GetItem(pair, 0), *second = PyTuple_GetItem(pair, 1);
        if (!PyLong_Check(first) || !PyLong_Check(second)) return FAILED; /* nothing of Python's runs in between */
        long pattern = PyLong_AsLong(first);
        hits[n].end = PyLong_AsSsize_t(second);
        if (PyErr_Occurred()) PyErr_Clear(), pattern = -1;
        if (pattern < 0 || pattern > 62) return FAILED;
        hits[n].bit = (uint64_t)1 << pattern;
    }
    return (int)count;
}

/* marks[place] = mask; 0 when there is no memory. */
static int put_mark(PyObject *marks, Py_ssize_t place, uint64_t mask) {
    PyObject *key = PyLong_FromSsize_t(place), *value = PyLong_FromUnsignedLongLong(mask);
    int failed = !key || !value || PyDict_SetItem(marks, key, value) < 0;
    Py_XDECREF(key);
    Py_XDECREF(value);
    return !failed;
}

/* The fields of an item that hold text, each behind what stands before it. With `marks` only those in which a hit ends, and there
   the bits of their hits. Returns FAILED with an exception set, ODD or GOOD. */
static int put_parts(PyObject *list, PyObject *marks, struct cursor in, int signal, const struct hit *hits, int count) {
    const uint8_t *item = in.at, *begun = in.at;
    struct part part;
    while (in.at < in.end) {
        if (!read_part(&in, &part) || !fits(&part, signal == 1 ? SPAN : RECORD, 0)) return ODD;
        uint64_t mask = 0;
        for (int n = 0; n < count; n++) {
            if (hits[n].end > part.begin - item && hits[n].end <= in.at - item) mask |= hits[n].bit;
        }
        if ((marks && !mask) || holds_no_text(&part, signal)) continue;
        if (!put(list, bytes_of(begun, part.begin)) || !put(list, bytes_of(part.begin, in.at))) return FAILED;
        if (marks && !put_mark(marks, PyList_Size(list) - 1, mask)) return FAILED;
        begun = in.at;
    }
    return put(list, bytes_of(begun, in.end)) ? GOOD : FAILED;
}

PyDoc_STRVAR(parts_doc, "parts(signal, item, /)\n--\n\n"
                        "A span or log record in parts that together are all of it: every second one is a field that holds text,\n"
                        "those around them ids of the right size, times and numbers, or nothing. None when it is not plain.\n"
                        "`signal`: 1 traces, 2 logs.");

static PyObject *plain_parts(PyObject *Py_UNUSED(module), PyObject *arguments) {
    int signal;
    PyObject *item;
    if (!PyArg_ParseTuple(arguments, "iS", &signal, &item)) return NULL;
    struct cursor in = {(const uint8_t *)PyBytes_AsString(item), NULL};
    in.end = in.at + PyBytes_Size(item);
    PyObject *list = PyList_New(0);
    int found = list ? put_parts(list, NULL, in, signal, NULL, 0) : FAILED;
    if (found == GOOD) return list;
    Py_XDECREF(list);
    return found == ODD ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(cut_doc, "cut(signal, item, hits, /)\n--\n\n"
                      "A span or log record in parts that together are all of it: every second one is a field of text in which a hit\n"
                      "ends; and for the place of each of these the bits of the patterns that hit. None when it is not plain.\n"
                      "`hits`: (pattern, end of the match in the item), at most 64; patterns below 63.");

static PyObject *plain_cut(PyObject *Py_UNUSED(module), PyObject *arguments) {
    int signal;
    PyObject *item, *list;
    struct hit hits[MOST_HITS];
    if (!PyArg_ParseTuple(arguments, "iSO!", &signal, &item, &PyList_Type, &list)) return NULL;
    int count = read_hits(list, hits);
    if (count == FAILED) return Py_NewRef(Py_None);
    struct cursor in = {(const uint8_t *)PyBytes_AsString(item), NULL};
    in.end = in.at + PyBytes_Size(item);
    PyObject *parts = PyList_New(0), *marks = PyDict_New(), *whole = NULL;
    int found = parts && marks ? put_parts(parts, marks, in, signal, hits, count) : FAILED;
    if (found == GOOD) whole = PyTuple_Pack(2, parts, marks);
    Py_XDECREF(parts);
    Py_XDECREF(marks);
    return found == ODD ? Py_NewRef(Py_None) : whole;
}

static PyObject *text_of(struct cursor text) { return PyUnicode_DecodeUTF8((const char *)text.at, text.end - text.at, NULL); }

PyDoc_STRVAR(pair_doc, "pair(field, /)\n--\n\n"
                       "Key and text of one attribute of a span or log record, its tag and length included; None when it is anything but\n"
                       "a key and one text in their order, in less than 16 KiB.");

static PyObject *plain_pair(PyObject *Py_UNUSED(module), PyObject *field) {
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(field, &data, &size) < 0) return NULL;
    struct cursor rest = {(const uint8_t *)data, (const uint8_t *)data + size}, content, key, value, text;
    uint8_t tag = size ? *rest.at : 0;
    if ((tag != SPAN_ATTRIBUTE_TAG && tag != RECORD_ATTRIBUTE_TAG) || !step(&rest, tag, &content) || rest.at < rest.end ||
        !step(&content, KEY_TAG, &key) || key.at == key.end || !step(&content, VALUE_TAG, &value) || content.at < content.end ||
        !step(&value, TEXT_TAG, &text) || value.at < value.end || !is_text(key.at, key.end) || !is_text(text.at, text.end)) {
        return Py_NewRef(Py_None);
    }
    PyObject *name = text_of(key), *said = text_of(text), *both = name && said ? PyTuple_Pack(2, name, said) : NULL;
    Py_XDECREF(name);
    Py_XDECREF(said);
    return both;
}

/* A tag, a length and, where there is one, the content. Returns where the next byte belongs. */
static uint8_t *write_field(uint8_t *at, uint8_t tag, size_t size, const char *content) {
    *at++ = tag;
    size_t left = size;
    for (; left > 127; left >>= 7) *at++ = (uint8_t)(left | 128);
    *at++ = (uint8_t)left;
    if (content) memcpy(at, content, size), at += size;
    return at;
}

/* Bytes of a field with a one-byte tag and so much content. */
static size_t field_size(size_t content) {
    size_t all = content + 2;
    for (; content > 127; content >>= 7) all++;
    return all;
}

PyDoc_STRVAR(put_pair_doc, "put_pair(field, key, text, /)\n--\n\n"
                           "The attribute `field` with this key and text instead of its own, encoded.");

static PyObject *plain_put_pair(PyObject *Py_UNUSED(module), PyObject *arguments) {
    PyObject *field;
    const char *key, *text;
    Py_ssize_t key_size, text_size;
    if (!PyArg_ParseTuple(arguments, "Ss#s#", &field, &key, &key_size, &text, &text_size)) return NULL;
    size_t value = field_size((size_t)text_size), content = field_size((size_t)key_size) + field_size(value);
    PyObject *out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)field_size(content));
    if (!out) return NULL;
    uint8_t *at = write_field((uint8_t *)PyBytes_AsString(out), (uint8_t)*PyBytes_AsString(field), content, NULL);
    at = write_field(at, KEY_TAG, (size_t)key_size, key);
    at = write_field(at, VALUE_TAG, value, NULL);
    write_field(at, TEXT_TAG, (size_t)text_size, text);
    return out;
}

static PyMethodDef functions[] = {{"open", plain_open, METH_VARARGS, open_doc},
                                  {"begin", plain_begin, METH_VARARGS, begin_doc},
                                  {"proceed", plain_proceed, METH_VARARGS, proceed_doc},
                                  {"parts", plain_parts, METH_VARARGS, parts_doc},
                                  {"cut", plain_cut, METH_VARARGS, cut_doc},
                                  {"pair", plain_pair, METH_O, pair_doc},
                                  {"put_pair", plain_put_pair, METH_VARARGS, put_pair_doc},
                                  {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {{Py_mod_exec, add_items}, {Py_mod_exec, add_ids}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_plain", "Plain OTLP requests, opened, searched and read.", 0, functions, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__plain(void) { return PyModuleDef_Init(&definition); }
