/* The fast path through plain requests: what every ordinary SDK sends is checked, cut into items, searched and read in C.

   Plain is what this file can read without a doubt: known fields with their wire types, shortest tags and lengths, valid UTF-8,
   ids of the right length, envelope fields in their order. Anything else is "not plain": `open`, `Shapes.read` and `parts`
   return None, `Keys.find` marks the item with every bit, and the Python path decides. So there is one implementation of errors
   and of odd input, and what is wrong here can only cost time. Every read is bounded by the cursor's end; nothing is written but
   new Python objects.

   In order: reading and checking fields; `open`; `Keys`, which finds spans; `Shapes`, which reads those of LLM calls; `select`,
   `fresh`, `pack` and `parts`, loops over ids or fields. Longer than other files, because most of it shares the cursor and the schema.

   collector.otlp.plain is the Python side. Field numbers: opentelemetry-proto, trace.proto, logs.proto, metrics.proto,
   common.proto. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "_text.h"

enum kind { UNKNOWN, VARINT, FIXED64, FIXED32, TEXT, BYTES, MESSAGE, VARINTS, FIXED64S }; /* the last two: packed */
enum message {
    ANY_VALUE, ARRAY, KEY_VALUES, KEY_VALUE, RESOURCE, ENTITY, SCOPE, SPAN, EVENT, LINK, STATUS, RECORD,
    METRIC, GAUGE, SUM, HISTOGRAM, EXPONENTIAL, SUMMARY,
    NUMBER_POINT, HISTOGRAM_POINT, EXPONENTIAL_POINT, SUMMARY_POINT, BUCKETS, QUANTILE, EXEMPLAR, MESSAGES
};
enum { FIELDS = 17, DEEPEST = 32, TRACE_ID = 16, SPAN_ID = 8 };

struct field {
    uint8_t kind, message;
};

static const struct field SCHEMA[MESSAGES][FIELDS] = {
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

struct cursor {
    const uint8_t *at, *end;
};

/* One field of a message: its number, its wire type, its value (varint) or its content, and where its tag begins. */
struct part {
    const uint8_t *begin;
    struct cursor content;
    uint64_t value;
    unsigned number, wire;
};

/* A varint in `value`. Returns its length, 0 when it does not end in time. */
static inline unsigned read_varint(struct cursor *in, uint64_t *value) {
    uint64_t result = 0;
    for (unsigned n = 0; n < 10 && in->at < in->end; n++) {
        uint8_t byte = *in->at++;
        if (n == 9 && byte > 1) return 0;
        result |= (uint64_t)(byte & 127) << (7 * n);
        if (byte < 128) {
            *value = result;
            return n + 1;
        }
    }
    return 0;
}

/* A tag or a length: as read_varint, but only in its shortest form. */
static inline int read_short(struct cursor *in, uint64_t *value) {
    if (in->at < in->end && *in->at < 128) {
        *value = *in->at++;
        return 1;
    }
    unsigned length = read_varint(in, value);
    return length > 1 && *value >> (7 * (length - 1)) != 0;
}

/* The next field. Returns 0 when there is none that is plain. */
static inline int read_part(struct cursor *in, struct part *out) {
    uint64_t tag, size;
    out->begin = out->content.at = out->content.end = in->at;
    out->value = 0;
    if (!read_short(in, &tag) || tag < 8 || tag >= 8 * FIELDS) return 0;
    out->number = (unsigned)(tag >> 3);
    out->wire = (unsigned)(tag & 7);
    if (out->wire == 0) return read_varint(in, &out->value) != 0;
    if (out->wire == 2) {
        if (!read_short(in, &size)) return 0;
    } else if (out->wire == 1 || out->wire == 5) {
        size = out->wire == 1 ? 8 : 4;
    } else {
        return 0;
    }
    if (size > (uint64_t)(in->end - in->at)) return 0;
    out->content.at = in->at;
    out->content.end = in->at += size;
    return 1;
}

static int is_plain(struct cursor in, enum message message, unsigned depth);

/* Step over a field with this tag and a length of one or two bytes. Returns 0 when it is written otherwise. */
static inline int step(struct cursor *in, uint8_t tag, struct cursor *content) {
    const uint8_t *at = in->at;
    size_t left = (size_t)(in->end - at), size;
    if (left < 2 || at[0] != tag) return 0;
    if (at[1] < 128) {
        size = at[1];
        at += 2, left -= 2;
    } else {
        if (left < 3 || at[2] == 0 || at[2] > 127) return 0;
        size = (size_t)(at[1] & 127) | (size_t)at[2] << 7;
        at += 3, left -= 3;
    }
    if (size > left) return 0;
    content->at = at;
    content->end = in->at = at + size;
    return 1;
}

enum { KEY_TAG = 0x0A, VALUE_TAG = 0x12, TEXT_TAG = 0x0A, SPAN_ATTRIBUTE_TAG = 9 << 3 | 2 };

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

static int is_zero(const uint8_t *at, size_t size) {
    while (size && !*at) at++, size--;
    return !size;
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

static PyObject *bytes_of(const uint8_t *at, const uint8_t *end) {
    return PyBytes_FromStringAndSize((const char *)at, end - at);
}

/* Append and let go; 0 when there is no memory. */
static int put(PyObject *list, PyObject *value) {
    int failed = !value || PyList_Append(list, value) < 0;
    Py_XDECREF(value);
    return !failed;
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

/* A condition on one attribute: its key, or how its key begins, and what its value must be. */
struct entry {
    const uint8_t *key;
    size_t size;
    uint64_t bit;
    int prefix, ranged;
    int64_t low, high;
    PyObject *values; /* a tuple of encoded AnyValues, borrowed from `owner`; NULL: any value */
};

typedef struct {
    PyObject_HEAD
    PyObject *owner;
    struct entry *entries;
    Py_ssize_t count;
    unsigned attributes;
    uint8_t tag;
    uint64_t error, all;
    Py_ssize_t start[257]; /* entries of one first byte stand together */
} Keys;

/* Whether an encoded AnyValue holds one scalar and nothing else, plainly written. */
static int is_scalar(struct cursor in, struct part *part) {
    const uint8_t *end = in.end;
    if (!read_part(&in, part) || in.at != end) return 0;
    if (part->number == 2) return part->wire == 0 && end - part->begin == 2 && part->value < 2;
    if (part->wire == 0) return end - part->begin == 2 || end[-1] != 0; /* no padding */
    return SCHEMA[ANY_VALUE][part->number].kind != UNKNOWN;
}

/* Whether the value may be one that the entry asks for: what is not plain may. */
static int may_hold(const struct entry *entry, struct cursor value) {
    struct part part;
    if (!entry->values && !entry->ranged) return 1;
    if (!is_scalar(value, &part)) return 1;
    if (entry->ranged) {
        int64_t number = (int64_t)part.value;
        return part.number != 3 || part.wire != 0 || (entry->low <= number && number <= entry->high);
    }
    for (Py_ssize_t n = PyTuple_Size(entry->values); n--;) {
        PyObject *wanted = PyTuple_GetItem(entry->values, n);
        if (PyBytes_Size(wanted) == value.end - value.at
            && !memcmp(PyBytes_AsString(wanted), value.at, (size_t)(value.end - value.at))) return 1;
    }
    return 0;
}

/* The bits of one encoded KeyValue. */
static inline uint64_t attribute_bits(const Keys *keys, struct cursor in) {
    struct cursor key, value = {NULL, NULL};
    uint64_t bits = 0;
    if (!step(&in, KEY_TAG, &key) || (in.at < in.end && (!step(&in, VALUE_TAG, &value) || in.at < in.end))) return keys->all;
    size_t size = (size_t)(key.end - key.at);
    unsigned first = size ? *key.at : 0;
    for (Py_ssize_t n = keys->start[first]; n < keys->start[first + 1]; n++) {
        const struct entry *entry = &keys->entries[n];
        if (size < entry->size || (size > entry->size && !entry->prefix)) continue;
        if (memcmp(key.at, entry->key, entry->size)) continue;
        if (value.at ? may_hold(entry, value) : !entry->values && !entry->ranged) bits |= entry->bit;
    }
    return bits;
}

static uint64_t item_bits(const Keys *keys, struct cursor in) {
    struct part part, inner;
    uint64_t bits = 0;
    while (in.at < in.end) {
        if (step(&in, keys->tag, &part.content)) {
            bits |= attribute_bits(keys, part.content);
            continue;
        }
        if (!read_part(&in, &part)) return keys->all;
        if (part.number == keys->attributes) {
            if (part.wire != 2) return keys->all;
            bits |= attribute_bits(keys, part.content);
        } else if (part.number == 15 && keys->error) {
            if (part.wire != 2) return keys->all;
            while (part.content.at < part.content.end) {
                if (!read_part(&part.content, &inner) || (inner.number == 3) != (inner.wire == 0)) return keys->all;
                if (inner.number == 3 && (uint32_t)inner.value == 2) bits |= keys->error;
            }
        }
    }
    return bits;
}

PyDoc_STRVAR(find_doc, "find(items, /)\n--\n\nPosition -> bits of the items that may fulfil a condition, by ascending position.");

static PyObject *keys_find(PyObject *self, PyObject *items) {
    const Keys *keys = (const Keys *)self;
    PyObject *found = PyDict_New();
    if (!PyList_Check(items)) PyErr_SetString(PyExc_TypeError, "items is a list");
    for (Py_ssize_t n = 0; found && !PyErr_Occurred() && n < PyList_Size(items); n++) {
        PyObject *item = PyList_GetItem(items, n);
        if (!PyBytes_Check(item)) {
            PyErr_SetString(PyExc_TypeError, "an item is bytes");
            break;
        }
        struct cursor in = {(const uint8_t *)PyBytes_AsString(item), NULL};
        in.end = in.at + PyBytes_Size(item);
        uint64_t bits = item_bits(keys, in);
        if (!bits) continue;
        PyObject *position = PyLong_FromSsize_t(n), *value = PyLong_FromUnsignedLongLong(bits);
        if (position && value) PyDict_SetItem(found, position, value);
        Py_XDECREF(position);
        Py_XDECREF(value);
    }
    if (!PyErr_Occurred()) return found;
    Py_XDECREF(found);
    return NULL;
}

/* One entry from (key, prefix, bit, low, high, values). Returns 0 with an exception set. */
static int read_entry(Keys *keys, PyObject *tuple, struct entry *entry) {
    PyObject *key, *low, *high, *values;
    unsigned bit;
    if (!PyArg_ParseTuple(tuple, "SpIOOO", &key, &entry->prefix, &bit, &low, &high, &values)) return 0;
    entry->key = (const uint8_t *)PyBytes_AsString(key);
    entry->size = (size_t)PyBytes_Size(key);
    if (!entry->size || bit > 61) {
        PyErr_SetString(PyExc_ValueError, "an empty key, or a bit over 61");
        return 0;
    }
    entry->bit = (uint64_t)1 << bit;
    keys->all |= entry->bit;
    if (low != Py_None) {
        entry->ranged = 1;
        entry->low = PyLong_AsLongLong(low);
        entry->high = PyLong_AsLongLong(high);
        return !PyErr_Occurred();
    }
    if (values == Py_None) return 1;
    if (!PyTuple_Check(values)) {
        PyErr_SetString(PyExc_TypeError, "values is a tuple or None");
        return 0;
    }
    for (Py_ssize_t n = PyTuple_Size(values); n--;) {
        if (!PyBytes_Check(PyTuple_GetItem(values, n))) {
            PyErr_SetString(PyExc_TypeError, "a value is bytes");
            return 0;
        }
    }
    entry->values = values;
    return 1;
}

static void keys_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(((Keys *)self)->entries);
    Py_XDECREF(((Keys *)self)->owner);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(keys_doc, "Keys(attributes, error, entries, /)\n--\n\n"
                       "Conditions on the attributes, field `attributes` of an item, and on a span's status.\n\n"
                       "`error`: the bit that status ERROR sets, or -1. Entries, by ascending key: (key, whether it is only the\n"
                       "beginning of one, bit, lowest and highest integer or None, encoded values or None). An integer range lets\n"
                       "through what is no integer.");

static PyObject *keys_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(keywords)) {
    PyObject *entries;
    unsigned attributes;
    int error;
    if (!PyArg_ParseTuple(arguments, "IiO!", &attributes, &error, &PyTuple_Type, &entries)) return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Keys *keys = (Keys *)allocate(type, 0); /* zeroed */
    if (!keys) return NULL;
    keys->owner = Py_NewRef(entries);
    keys->attributes = attributes;
    keys->tag = (uint8_t)(attributes << 3 | 2);
    keys->error = keys->all = error < 0 ? 0 : (uint64_t)1 << (error & 63);
    keys->count = PyTuple_Size(entries);
    keys->entries = PyMem_Calloc((size_t)keys->count + 1, sizeof(struct entry));
    if (!keys->entries) {
        Py_DECREF(keys);
        return PyErr_NoMemory();
    }
    unsigned first = 0;
    for (Py_ssize_t n = 0; n < keys->count; n++) {
        PyObject *tuple = PyTuple_GetItem(entries, n);
        if (!PyTuple_Check(tuple)) PyErr_SetString(PyExc_TypeError, "an entry is a tuple");
        if (PyErr_Occurred() || !read_entry(keys, tuple, &keys->entries[n])) {
            Py_DECREF(keys);
            return NULL;
        }
        if (*keys->entries[n].key < first) {
            PyErr_SetString(PyExc_ValueError, "entries are not in the order of their keys");
            Py_DECREF(keys);
            return NULL;
        }
        while (first < *keys->entries[n].key) keys->start[++first] = n;
    }
    while (first < 256) keys->start[++first] = keys->count;
    return (PyObject *)keys;
}

static PyMethodDef keys_methods[] = {{"find", keys_find, METH_O, find_doc}, {NULL, NULL, 0, NULL}};

static PyType_Slot keys_slots[] = {{Py_tp_new, keys_new},         {Py_tp_dealloc, keys_dealloc},
                                   {Py_tp_methods, keys_methods}, {Py_tp_doc, (void *)keys_doc},
                                   {0, NULL}};

static PyType_Spec keys_spec = {"collector.otlp._plain.Keys", sizeof(Keys), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, keys_slots};

/* Names of attributes and what to do with each: collector.processors.llm_cost.shapes has the kinds. */
enum way { SAME, COUNT, SECONDS, IDENTITY, THERE, INTRICATE, WAYS };
enum { LONGEST_NAME = 127, LONGEST_IDENTITY = 125, MOST_COUNTS = 32, LONGEST_SHAPE = 4096, SLOTS = 256 };
#define MOST_TOKENS 1000000000000u

struct name {
    const uint8_t *at; /* in `owner` */
    size_t size;
    enum way way;
};

typedef struct {
    PyObject_HEAD
    PyObject *owner;
    struct name *names;
    Py_ssize_t start[SLOTS + 1]; /* names of one slot stand together */
} Shapes;

/* A call as it is read: its times, ids and what differs between calls of one shape. */
struct call {
    uint64_t start, end, counts[MOST_COUNTS];
    struct cursor trace, span, parent, name, identity;
    double first;
    unsigned status, count;
    int timed;
    size_t size;
    uint8_t shape[LONGEST_SHAPE];
};

static inline unsigned slot_of(const uint8_t *at, size_t size) {
    return (unsigned)(size * 5 + at[size - 1] * 3u + at[size / 2] * 7u) % SLOTS;
}

/* What to do with an attribute of that name; WAYS when nobody asks for it. */
static inline enum way way_of(const Shapes *shapes, struct cursor key) {
    size_t size = (size_t)(key.end - key.at);
    if (!size) return WAYS;
    unsigned slot = slot_of(key.at, size);
    for (Py_ssize_t n = shapes->start[slot]; n < shapes->start[slot + 1]; n++) {
        const struct name *name = &shapes->names[n];
        if (name->size == size && !memcmp(name->at, key.at, size)) return name->way;
    }
    return WAYS;
}

/* Add one part to the shape, behind its size. Returns 0 when there is no room. */
static inline int add_part(struct call *call, const uint8_t *at, const uint8_t *end) {
    size_t size = (size_t)(end - at);
    if (size > LONGEST_SHAPE || call->size + size + 2 > LONGEST_SHAPE) return 0;
    call->shape[call->size++] = (uint8_t)(size & 255);
    call->shape[call->size++] = (uint8_t)(size >> 8);
    if (size) memcpy(call->shape + call->size, at, size);
    call->size += size;
    return 1;
}

static inline uint64_t fixed64(const uint8_t *at) {
    uint64_t value = 0;
    for (unsigned n = 8; n--;) value = value << 8 | at[n];
    return value;
}

/* The value of an attribute that differs, plainly written: a token count, a time or a response id. */
static int read_value(struct cursor in, enum way way, struct call *call) {
    struct part part;
    if (!is_scalar(in, &part)) return 0;
    if (way == COUNT) {
        if (part.number != 3 || part.wire != 0 || part.value > MOST_TOKENS || call->count == MOST_COUNTS) return 0;
        call->counts[call->count++] = part.value;
    } else if (way == SECONDS) {
        if (part.number != 4 || part.wire != 1 || call->timed++) return 0;
        uint64_t bits = fixed64(part.content.at);
        memcpy(&call->first, &bits, sizeof bits);
        if (!(call->first > 0 && call->first < 1e9)) return 0;
    } else {
        if (part.number != 1 || part.wire != 2 || call->identity.at) return 0;
        ptrdiff_t size = part.content.end - part.content.at;
        if (size < 1 || size > LONGEST_IDENTITY) return 0;
        for (const uint8_t *at = part.content.at; at < part.content.end; at++) {
            if (*at <= ' ' || *at > '~') return 0; /* what Python strips or decodes */
        }
        call->identity = part.content;
    }
    return 1;
}

static inline int read_attribute(const Shapes *shapes, struct cursor in, struct call *call) {
    struct cursor whole = in, key, value;
    if (!step(&in, KEY_TAG, &key) || key.end - key.at > LONGEST_NAME) return 0;
    enum way way = way_of(shapes, key);
    if (way == WAYS) return 1;
    if (way == INTRICATE) return 0;
    if (way == SAME) return add_part(call, whole.at, whole.end);
    if (!add_part(call, whole.at, key.end)) return 0;
    if (way == THERE) return 1;
    return step(&in, VALUE_TAG, &value) && in.at == in.end && read_value(value, way, call);
}

static int read_status(struct cursor in, struct call *call) {
    struct part part;
    while (in.at < in.end) {
        if (!read_part(&in, &part) || (part.number == 3) != (part.wire == 0)) return 0;
        if (part.number == 3 && part.value > 2) return 0;
        if (part.number == 3) call->status = (unsigned)part.value;
    }
    return 1;
}

static int has_size(const struct part *part, ptrdiff_t size) {
    return part->wire == 2 && part->content.end - part->content.at == size;
}

/* Read a span; 0 when it must be read the thorough way. */
static int read_call(const Shapes *shapes, struct cursor in, struct call *call) {
    struct part part;
    while (in.at < in.end) {
        if (step(&in, SPAN_ATTRIBUTE_TAG, &part.content)) {
            if (!read_attribute(shapes, part.content, call)) return 0;
            continue;
        }
        if (!read_part(&in, &part)) return 0;
        switch (part.number) {
        case 1: if (!has_size(&part, TRACE_ID)) return 0; call->trace = part.content; break;
        case 2: if (!has_size(&part, SPAN_ID)) return 0; call->span = part.content; break;
        case 4:
            if (!has_size(&part, SPAN_ID) && !has_size(&part, 0)) return 0;
            call->parent = part.content;
            break;
        case 5:
            if (part.wire != 2 || !is_text(part.content.at, part.content.end)) return 0;
            call->name = part.content;
            break;
        case 7: if (part.wire != 1) return 0; call->start = fixed64(part.content.at); break;
        case 8: if (part.wire != 1) return 0; call->end = fixed64(part.content.at); break;
        case 9: if (part.wire != 2 || !read_attribute(shapes, part.content, call)) return 0; break;
        case 15: if (part.wire != 2 || !read_status(part.content, call)) return 0; break;
        default: break;
        }
    }
    return call->trace.at && call->span.at && call->end > call->start && call->end <= INT64_MAX;
}

static PyObject *joined(struct cursor first, struct cursor second) {
    Py_ssize_t size = first.end - first.at;
    PyObject *out = PyBytes_FromStringAndSize(NULL, size + (second.end - second.at));
    if (!out) return NULL;
    memcpy(PyBytes_AsString(out), first.at, (size_t)size);
    if (second.at < second.end) memcpy(PyBytes_AsString(out) + size, second.at, (size_t)(second.end - second.at));
    return out;
}

/* A tuple of `count` new objects, all of which it takes over; NULL when one of them is. */
static PyObject *tuple_of(PyObject *const *values, Py_ssize_t count) {
    PyObject *out = PyTuple_New(count);
    int failed = !out;
    for (Py_ssize_t n = 0; n < count; n++) {
        if (!values[n]) failed = 1;
        if (!out || !values[n]) Py_XDECREF(values[n]);
        else PyTuple_SetItem(out, n, values[n]);
    }
    if (!failed) return out;
    Py_XDECREF(out);
    return NULL;
}

static PyObject *counts_of(const struct call *call) {
    PyObject *values[MOST_COUNTS];
    for (unsigned n = 0; n < call->count; n++) values[n] = PyLong_FromUnsignedLongLong(call->counts[n]);
    return tuple_of(values, call->count);
}

/* (end, start, own, parent, trace id, shape, counts, identity, first), or None. */
static PyObject *row_of(const Shapes *shapes, struct cursor in, int named) {
    struct call call;
    memset(&call, 0, offsetof(struct call, shape));
    if (!read_call(shapes, in, &call)) Py_RETURN_NONE;
    uint8_t status = (uint8_t)call.status;
    if ((named && !add_part(&call, call.name.at, call.name.end)) || !add_part(&call, &status, &status + 1)) Py_RETURN_NONE;
    struct cursor identity = call.identity;
    PyObject *const values[] = {
        PyLong_FromUnsignedLongLong(call.end),
        PyLong_FromUnsignedLongLong(call.start),
        joined(call.trace, call.span),
        joined(call.trace, call.parent),
        bytes_of(call.trace.at, call.trace.end),
        bytes_of(call.shape, call.shape + call.size),
        counts_of(&call),
        identity.at ? PyUnicode_DecodeUTF8((const char *)identity.at, identity.end - identity.at, NULL) : Py_NewRef(Py_None),
        call.timed ? PyFloat_FromDouble(call.first) : Py_NewRef(Py_None),
    };
    return tuple_of(values, sizeof values / sizeof *values);
}

/* The bytes of one element of a list; 0 with an exception set when it is none. */
static int item_at(PyObject *list, Py_ssize_t position, struct cursor *out) {
    PyObject *item = PyList_GetItem(list, position);
    if (!item) return 0;
    if (!PyBytes_Check(item)) {
        PyErr_SetString(PyExc_TypeError, "an item is bytes");
        return 0;
    }
    out->at = (const uint8_t *)PyBytes_AsString(item);
    out->end = out->at + PyBytes_Size(item);
    return 1;
}

PyDoc_STRVAR(shapes_read_doc, "read(items, positions, named, /)\n--\n\n"
                              "For each position what the span there says: (end, start, trace id + span id, trace id + parent's\n"
                              "span id, trace id, shape, counts, response id or None, time to the first token or None). None where\n"
                              "it is not plainly written. `named`: the span's name belongs to the shape.");

static PyObject *shapes_read(PyObject *self, PyObject *arguments) {
    PyObject *items, *positions;
    int named;
    if (!PyArg_ParseTuple(arguments, "O!O!p", &PyList_Type, &items, &PyList_Type, &positions, &named)) return NULL;
    PyObject *rows = PyList_New(0);
    int good = rows != NULL;
    for (Py_ssize_t n = 0; good && n < PyList_Size(positions); n++) {
        struct cursor in;
        Py_ssize_t position = PyLong_AsSsize_t(PyList_GetItem(positions, n));
        good = !(position == -1 && PyErr_Occurred()) && item_at(items, position, &in);
        if (!good) break;
        PyObject *item = Py_NewRef(PyList_GetItem(items, position));
        good = put(rows, row_of((const Shapes *)self, in, named));
        Py_DECREF(item);
    }
    if (good) return rows;
    Py_XDECREF(rows);
    return NULL;
}

static void shapes_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(((Shapes *)self)->names);
    Py_XDECREF(((Shapes *)self)->owner);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* One name from (name, way). Returns 0 with an exception set. */
static int read_name(PyObject *pair, struct name *name) {
    PyObject *key;
    unsigned way;
    if (!PyTuple_Check(pair)) {
        PyErr_SetString(PyExc_TypeError, "an entry is a tuple");
        return 0;
    }
    if (!PyArg_ParseTuple(pair, "SI", &key, &way)) return 0;
    name->at = (const uint8_t *)PyBytes_AsString(key);
    name->size = (size_t)PyBytes_Size(key);
    if (!name->size || way >= WAYS) {
        PyErr_SetString(PyExc_ValueError, "an empty name, or a way that there is not");
        return 0;
    }
    name->way = (enum way)way;
    return 1;
}

/* Fill `names` from `owner`, slot by slot. Returns 0 with an exception set. */
static int sort_names(Shapes *shapes, Py_ssize_t count) {
    struct name name;
    Py_ssize_t next[SLOTS];
    for (Py_ssize_t n = 0; n < count; n++) {
        if (!read_name(PyTuple_GetItem(shapes->owner, n), &name)) return 0;
        shapes->start[slot_of(name.at, name.size) + 1]++;
    }
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        next[slot] = shapes->start[slot];
        shapes->start[slot + 1] += shapes->start[slot];
    }
    for (Py_ssize_t n = 0; n < count; n++) {
        if (!read_name(PyTuple_GetItem(shapes->owner, n), &name)) return 0;
        shapes->names[next[slot_of(name.at, name.size)]++] = name;
    }
    return 1;
}

PyDoc_STRVAR(shapes_doc, "Shapes(names, /)\n--\n\n"
                         "Reads the spans of LLM calls. `names`: (attribute name, what to do with it), each once.");

static PyObject *shapes_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(keywords)) {
    PyObject *names;
    if (!PyArg_ParseTuple(arguments, "O!", &PyTuple_Type, &names)) return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Shapes *shapes = (Shapes *)allocate(type, 0); /* zeroed */
    if (!shapes) return NULL;
    Py_ssize_t count = PyTuple_Size(names);
    shapes->owner = Py_NewRef(names);
    shapes->names = PyMem_Calloc((size_t)count + 1, sizeof(struct name));
    if (!shapes->names) PyErr_NoMemory();
    if (shapes->names && sort_names(shapes, count)) return (PyObject *)shapes;
    Py_DECREF(shapes);
    return NULL;
}

static PyMethodDef shapes_methods[] = {{"read", shapes_read, METH_VARARGS, shapes_read_doc}, {NULL, NULL, 0, NULL}};

static PyType_Slot shapes_slots[] = {{Py_tp_new, shapes_new},         {Py_tp_dealloc, shapes_dealloc},
                                     {Py_tp_methods, shapes_methods}, {Py_tp_doc, (void *)shapes_doc},
                                     {0, NULL}};

static PyType_Spec shapes_spec = {"collector.otlp._plain.Shapes", sizeof(Shapes), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, shapes_slots};

PyDoc_STRVAR(select_doc, "select(ids, items, wanted, /)\n--\n\n"
                         "(ids, items) of those whose id is a key of the dictionary `wanted`. Two lists of one length.");

static PyObject *plain_select(PyObject *Py_UNUSED(module), PyObject *arguments) {
    PyObject *ids, *items, *wanted, *last = NULL;
    if (!PyArg_ParseTuple(arguments, "O!O!O!", &PyList_Type, &ids, &PyList_Type, &items, &PyDict_Type, &wanted)) return NULL;
    if (PyList_Size(ids) != PyList_Size(items)) {
        PyErr_SetString(PyExc_ValueError, "ids and items are of one length");
        return NULL;
    }
    PyObject *values[] = {PyList_New(0), PyList_New(0)};
    int found = values[0] && values[1] ? 0 : -1;
    /* asking for a key may run Python code, so the lists are asked for their size each time */
    for (Py_ssize_t n = 0; found >= 0 && n < PyList_Size(ids) && n < PyList_Size(items); n++) {
        PyObject *id = Py_NewRef(PyList_GetItem(ids, n)), *item = Py_NewRef(PyList_GetItem(items, n));
        if (id != last) found = PyDict_Contains(wanted, id);
        if (found > 0 && (PyList_Append(values[0], id) < 0 || PyList_Append(values[1], item) < 0)) found = -1;
        Py_DECREF(item);
        Py_XDECREF(last);
        last = id;
    }
    Py_XDECREF(last);
    if (found >= 0) return tuple_of(values, 2);
    Py_XDECREF(values[0]);
    Py_XDECREF(values[1]);
    return NULL;
}

/* A share of all trace ids and the bit that it sets: those whose hash is at most the threshold. */
struct share {
    uint64_t state, threshold;
    PyObject *bit; /* borrowed */
};

enum { MOST_TABLES = 8 };

/* The shares in ((state, threshold, bit), ...), in memory of their own; NULL with an exception set. */
static struct share *read_shares(PyObject *tuple) {
    Py_ssize_t count = PyTuple_Size(tuple);
    struct share *shares = PyMem_Calloc((size_t)count + 1, sizeof *shares);
    if (!shares) PyErr_NoMemory();
    for (Py_ssize_t n = 0; shares && n < count; n++) {
        PyObject *entry = PyTuple_GetItem(tuple, n);
        unsigned long long state, threshold;
        int good = PyTuple_Check(entry);
        if (!good) PyErr_SetString(PyExc_TypeError, "a share is a tuple");
        if (good && PyArg_ParseTuple(entry, "KKO!", &state, &threshold, &PyLong_Type, &shares[n].bit)) {
            shares[n].state = state;
            shares[n].threshold = threshold;
        } else {
            PyMem_Free(shares);
            shares = NULL;
        }
    }
    return shares;
}

/* Fill `tables` with those of the dictionaries that hold something. Returns how many, -1 with an exception set. */
static Py_ssize_t read_tables(PyObject *tuple, PyObject **tables) {
    Py_ssize_t count = 0;
    if (PyTuple_Size(tuple) > MOST_TABLES) {
        PyErr_SetString(PyExc_ValueError, "too many tables");
        return -1;
    }
    for (Py_ssize_t n = 0; n < PyTuple_Size(tuple); n++) {
        PyObject *table = PyTuple_GetItem(tuple, n);
        if (!PyDict_Check(table)) {
            PyErr_SetString(PyExc_TypeError, "a table is a dictionary");
            return -1;
        }
        if (PyDict_Size(table)) tables[count++] = table;
    }
    return count;
}

static inline uint64_t hash_of(struct cursor id, uint64_t state) {
    while (id.at < id.end) state = (state ^ *id.at++) * 0x100000001B3u;
    return state;
}

/* What a trace id says by itself: `always` and the bits of its shares. */
static PyObject *bits_of(struct cursor id, PyObject *always, const struct share *shares, Py_ssize_t count) {
    PyObject *bits = Py_NewRef(always);
    for (Py_ssize_t n = 0; bits && n < count; n++) {
        if (hash_of(id, shares[n].state) > shares[n].threshold) continue;
        PyObject *more = PyNumber_Or(bits, shares[n].bit);
        Py_DECREF(bits);
        bits = more;
    }
    return bits;
}

/* Whether an id is none that a trace can have, or a key of one of the tables. Returns -1 with an exception set. */
static int is_known(PyObject *object, struct cursor id, PyObject *const *tables, Py_ssize_t count) {
    int found = id.end - id.at != TRACE_ID || is_zero(id.at, TRACE_ID);
    for (Py_ssize_t n = 0; !found && n < count; n++) found = PyDict_Contains(tables[n], object);
    return found;
}

PyDoc_STRVAR(fresh_doc, "fresh(lists, tables, always, shares, /)\n--\n\n"
                        "What the trace ids in some lists say by themselves, as two dictionaries: ids that are new, and those that\n"
                        "are keys of one of the dictionaries `tables` or not valid. `shares`: (state, threshold, bit) of each; the\n"
                        "bit is added to `always` for ids whose FNV-1a hash, going on from `state`, is at most `threshold`.");

/* What `fresh` works with. */
struct look {
    PyObject *always, *tables[MOST_TABLES], *out[2];
    struct share *shares;
    Py_ssize_t table_count, share_count;
};

/* Put one id where it belongs, unless it is there already. Returns 0 with an exception set. */
static int look_at(struct look *look, PyObject *id) {
    struct cursor bytes;
    if (!PyBytes_Check(id)) {
        PyErr_SetString(PyExc_TypeError, "a trace id is bytes");
        return 0;
    }
    int found = PyDict_Contains(look->out[0], id);
    if (found == 0) found = PyDict_Contains(look->out[1], id);
    if (found) return found > 0;
    bytes.at = (const uint8_t *)PyBytes_AsString(id);
    bytes.end = bytes.at + PyBytes_Size(id);
    found = is_known(id, bytes, look->tables, look->table_count);
    if (found < 0) return 0;
    PyObject *bits = bits_of(bytes, look->always, look->shares, look->share_count);
    int failed = !bits || PyDict_SetItem(look->out[found], id, bits) < 0;
    Py_XDECREF(bits);
    return !failed;
}

/* The same for all ids of a list, which may change meanwhile: a table's keys may be objects that run Python code. */
static int look_at_all(struct look *look, PyObject *ids) {
    PyObject *last = NULL;
    int good = PyList_Check(ids);
    if (!good) PyErr_SetString(PyExc_TypeError, "trace ids are in lists");
    for (Py_ssize_t n = 0; good && n < PyList_Size(ids); n++) {
        PyObject *id = PyList_GetItem(ids, n);
        if (id == last) continue;
        Py_XDECREF(last);
        last = Py_NewRef(id);
        good = look_at(look, id);
    }
    Py_XDECREF(last);
    return good;
}

static PyObject *plain_fresh(PyObject *Py_UNUSED(module), PyObject *arguments) {
    PyObject *lists, *tables, *rows;
    struct look look;
    if (!PyArg_ParseTuple(arguments, "O!O!O!O!", &PyTuple_Type, &lists, &PyTuple_Type, &tables, &PyLong_Type, &look.always,
                          &PyTuple_Type, &rows)) return NULL;
    look.table_count = read_tables(tables, look.tables);
    look.share_count = PyTuple_Size(rows);
    look.shares = look.table_count < 0 ? NULL : read_shares(rows);
    if (!look.shares) return NULL;
    look.out[0] = PyDict_New();
    look.out[1] = PyDict_New();
    int good = look.out[0] && look.out[1];
    for (Py_ssize_t n = 0; good && n < PyTuple_Size(lists); n++) good = look_at_all(&look, PyTuple_GetItem(lists, n));
    PyMem_Free(look.shares);
    if (good) return tuple_of(look.out, 2);
    Py_XDECREF(look.out[0]);
    Py_XDECREF(look.out[1]);
    return NULL;
}

/* The trace ids and items that `pack` has chosen, each of them held, and their bytes. */
struct chosen {
    PyObject **ids, **items;
    Py_ssize_t count, most;
    uint64_t size;
};

/* Choose from two lists; 0 with an exception set. Asking for a key may run Python code, so the lists are asked for their size
   each time, and no more is taken than there was at first. */
static int choose(struct chosen *chosen, PyObject *ids, PyObject *items, PyObject *wanted) {
    PyObject *last = NULL;
    int found = 0;
    for (Py_ssize_t n = 0; found >= 0 && chosen->count < chosen->most && n < PyList_Size(ids) && n < PyList_Size(items); n++) {
        PyObject *id = Py_NewRef(PyList_GetItem(ids, n)), *item = Py_NewRef(PyList_GetItem(items, n));
        int good = PyBytes_Check(id) && PyBytes_Check(item);
        if (!good) PyErr_SetString(PyExc_TypeError, "an id and an item are bytes");
        if (!good || id != last) found = good ? PyDict_Contains(wanted, id) : -1;
        if (found > 0 && PyBytes_Size(id) != TRACE_ID) {
            PyErr_SetString(PyExc_ValueError, "a trace id has 16 bytes");
            found = -1;
        }
        if (found > 0) {
            chosen->size += (uint64_t)PyBytes_Size(item);
            chosen->ids[chosen->count] = Py_NewRef(id);
            chosen->items[chosen->count++] = Py_NewRef(item);
        }
        Py_DECREF(item);
        Py_XDECREF(last);
        last = id;
    }
    Py_XDECREF(last);
    return found >= 0;
}

/* Whether these are tuples of lists, the first ones as long as the second ones; `most` is how many elements either have. */
static int are_parallel(PyObject *ids, PyObject *items, Py_ssize_t *most) {
    *most = 0;
    int good = PyTuple_Size(ids) == PyTuple_Size(items);
    for (Py_ssize_t n = 0; good && n < PyTuple_Size(ids); n++) {
        PyObject *first = PyTuple_GetItem(ids, n), *second = PyTuple_GetItem(items, n);
        good = PyList_Check(first) && PyList_Check(second) && PyList_Size(first) == PyList_Size(second);
        *most += good ? PyList_Size(first) : 0;
    }
    if (!good) PyErr_SetString(PyExc_ValueError, "ids and items are lists of one length");
    return good;
}

/* What was chosen: (ids, ends, items, counts). */
static PyObject *packed(const struct chosen *chosen, PyObject *counts) {
    Py_ssize_t count = chosen->count;
    if (chosen->size > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "the items are more than 4 GiB");
        return NULL;
    }
    PyObject *values[] = {
        PyBytes_FromStringAndSize(NULL, count * TRACE_ID),
        PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(uint32_t)),
        count == 1 ? Py_NewRef(chosen->items[0]) : PyBytes_FromStringAndSize(NULL, (Py_ssize_t)chosen->size),
        Py_NewRef(counts),
    };
    uint32_t end = 0;
    for (Py_ssize_t n = 0; values[0] && values[1] && values[2] && n < count; n++) {
        size_t size = (size_t)PyBytes_Size(chosen->items[n]);
        if (count > 1) memcpy(PyBytes_AsString(values[2]) + end, PyBytes_AsString(chosen->items[n]), size);
        end += (uint32_t)size;
        memcpy(PyBytes_AsString(values[0]) + n * TRACE_ID, PyBytes_AsString(chosen->ids[n]), TRACE_ID);
        memcpy(PyBytes_AsString(values[1]) + n * (Py_ssize_t)sizeof end, &end, sizeof end);
    }
    return tuple_of(values, sizeof values / sizeof *values);
}

PyDoc_STRVAR(pack_doc, "pack(ids, items, wanted, /)\n--\n\n"
                       "Of the lists in two tuples the items whose trace id is a key of the dictionary `wanted`: their ids, where\n"
                       "each of them ends (32 bits, in the machine's order), they themselves, one behind the other, and how many\n"
                       "each list had.");

static PyObject *plain_pack(PyObject *Py_UNUSED(module), PyObject *arguments) {
    PyObject *ids, *items, *wanted, *out = NULL;
    struct chosen chosen = {NULL, NULL, 0, 0, 0};
    if (!PyArg_ParseTuple(arguments, "O!O!O!", &PyTuple_Type, &ids, &PyTuple_Type, &items, &PyDict_Type, &wanted)
        || !are_parallel(ids, items, &chosen.most)) return NULL;
    chosen.ids = PyMem_Calloc((size_t)chosen.most * 2 + 1, sizeof *chosen.ids);
    if (!chosen.ids) return PyErr_NoMemory();
    chosen.items = chosen.ids + chosen.most;
    PyObject *counts = PyList_New(0);
    int good = counts != NULL;
    for (Py_ssize_t n = 0; good && n < PyTuple_Size(ids); n++) {
        Py_ssize_t before = chosen.count;
        good = choose(&chosen, PyTuple_GetItem(ids, n), PyTuple_GetItem(items, n), wanted);
        if (good) good = put(counts, PyLong_FromSsize_t(chosen.count - before));
    }
    if (good) out = packed(&chosen, counts);
    while (chosen.count--) {
        Py_DECREF(chosen.ids[chosen.count]);
        Py_DECREF(chosen.items[chosen.count]);
    }
    PyMem_Free(chosen.ids);
    Py_XDECREF(counts);
    return out;
}

/* Whether a field of an item holds no text: a number, or an id of the right size. */
static int holds_no_text(const struct part *part, int signal) {
    ptrdiff_t size = part->content.end - part->content.at;
    if (part->wire != 2) return 1;
    if (signal == 1 && part->number == 1) return size == TRACE_ID;
    if (signal == 1) return (part->number == 2 || part->number == 4) && size == SPAN_ID;
    return part->number == 9 ? size == TRACE_ID : part->number == 10 && size == SPAN_ID;
}

/* The fields of an item that hold text, each behind what stands before it. Returns FAILED with an exception set, ODD or GOOD. */
static int put_parts(PyObject *list, struct cursor in, int signal) {
    const uint8_t *begun = in.at;
    struct part part;
    while (in.at < in.end) {
        if (!read_part(&in, &part) || !fits(&part, signal == 1 ? SPAN : RECORD, 0)) return ODD;
        if (holds_no_text(&part, signal)) continue;
        if (!put(list, bytes_of(begun, part.begin)) || !put(list, bytes_of(part.begin, in.at))) return FAILED;
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
    int found = list ? put_parts(list, in, signal) : FAILED;
    if (found == GOOD) return list;
    Py_XDECREF(list);
    return found == ODD ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef functions[] = {{"open", plain_open, METH_VARARGS, open_doc},
                                  {"begin", plain_begin, METH_VARARGS, begin_doc},
                                  {"proceed", plain_proceed, METH_VARARGS, proceed_doc},
                                  {"select", plain_select, METH_VARARGS, select_doc},
                                  {"fresh", plain_fresh, METH_VARARGS, fresh_doc},
                                  {"pack", plain_pack, METH_VARARGS, pack_doc},
                                  {"parts", plain_parts, METH_VARARGS, parts_doc},
                                  {NULL, NULL, 0, NULL}};

static int add_type(PyObject *module, const char *name, PyType_Spec *spec) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (!type) return -1;
    int failed = PyModule_AddObjectRef(module, name, type);
    Py_DECREF(type);
    return failed;
}

static int plain_exec(PyObject *module) {
    return add_type(module, "Keys", &keys_spec) < 0 || add_type(module, "Shapes", &shapes_spec) < 0 ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, plain_exec}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_plain", "Plain OTLP requests, opened, searched and read.", 0, functions, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__plain(void) { return PyModuleDef_Init(&definition); }
