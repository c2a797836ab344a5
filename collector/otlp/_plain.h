/* Shared by the three files of the walker: names of the schema, reading a field, making Python objects. _plain.c has the rules. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

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

/* Which fields each message has: in _plain.c. */
extern const struct field SCHEMA[MESSAGES][FIELDS];

/* Add to the module what _plain_items.c and _plain_ids.c offer. Return -1 with an exception set. */
int add_items(PyObject *module);
int add_ids(PyObject *module);

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

enum { KEY_TAG = 0x0A, VALUE_TAG = 0x12, TEXT_TAG = 0x0A, SPAN_ATTRIBUTE_TAG = 9 << 3 | 2, RECORD_ATTRIBUTE_TAG = 6 << 3 | 2 };

static inline PyObject *bytes_of(const uint8_t *at, const uint8_t *end) {
    return PyBytes_FromStringAndSize((const char *)at, end - at);
}

/* Append and let go; 0 when there is no memory. */
static inline int put(PyObject *list, PyObject *value) {
    int failed = !value || PyList_Append(list, value) < 0;
    Py_XDECREF(value);
    return !failed;
}

static inline int is_zero(const uint8_t *at, size_t size) {
    while (size && !*at) at++, size--;
    return !size;
}

/* A tuple of `count` new objects, all of which it takes over; NULL when one of them is. */
static inline PyObject *tuple_of(PyObject *const *values, Py_ssize_t count) {
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
