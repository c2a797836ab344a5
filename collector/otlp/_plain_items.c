/* What is asked of items that are cut: `Keys` finds those that may fulfil a condition, `Shapes` reads the spans of LLM calls,
   The rules of _plain.c hold here too: what is not plain is marked or left to Python.
   Longer than other files: all of it reads attributes by the same few steps. */

#include "_plain.h"
#include "_text.h"

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

static int add_type(PyObject *module, const char *name, PyType_Spec *spec) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (!type) return -1;
    int failed = PyModule_AddObjectRef(module, name, type);
    Py_DECREF(type);
    return failed;
}

int add_items(PyObject *module) {
    return add_type(module, "Keys", &keys_spec) < 0 || add_type(module, "Shapes", &shapes_spec) < 0 ? -1 : 0;
}
