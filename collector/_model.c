/* Encodes a batch in one copy: `Batch.encode` of collector.model, which does the same with protobuf at five times the cost.

   Only for batches as the walker and protobuf make them: lists of bytes, headers of a group or scope with the resource or scope
   fields first and at most a schema_url behind them, which stays behind the members. For anything else the answer is None.
   No Python code runs between measuring and writing, so that both see the same. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { MEMBER = 0x12, FIRST = 0x0A, URL = 0x1A, GROUP = 0x0A };

/* A group (`items` is NULL, `scopes` of its scopes follow) or a scope. `split`: bytes of the header before its members. */
struct part {
    PyObject *header, *items;
    Py_ssize_t scopes, split, size;
};

struct parts {
    struct part *list;
    Py_ssize_t count, room;
};

static unsigned varint_size(uint64_t value) {
    unsigned size = 1;
    while (value > 127) {
        value >>= 7;
        size++;
    }
    return size;
}

static char *put_field(char *at, char tag, uint64_t size) {
    *at++ = tag;
    while (size > 127) {
        *at++ = (char)(size | 128);
        size >>= 7;
    }
    *at++ = (char)size;
    return at;
}

static char *put_bytes(char *at, const char *from, Py_ssize_t size) {
    memcpy(at, from, (size_t)size);
    return at + size;
}

/* Where the field that begins at `at` ends; -1 when it is no plain field with a length. */
static Py_ssize_t behind(const uint8_t *data, Py_ssize_t at, Py_ssize_t end) {
    uint64_t size = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
        if (++at >= end) return -1;
        size |= (uint64_t)(data[at] & 127) << shift;
        if (data[at] < 128) {
            if (shift && !data[at]) return -1; /* longer than it need be: protobuf would write it anew */
            return size <= (uint64_t)(end - at - 1) ? at + 1 + (Py_ssize_t)size : -1;
        }
    }
    return -1;
}

/* How many bytes of a header stand before its members; -1 when it is not plain. */
static Py_ssize_t split_of(PyObject *header) {
    char *data;
    Py_ssize_t end, at = 0;
    if (PyBytes_AsStringAndSize(header, &data, &end) < 0) return -1;
    const uint8_t *bytes = (const uint8_t *)data;
    while (at < end && bytes[at] == FIRST)
        if ((at = behind(bytes, at, end)) < 0) return -1;
    if (at == end) return at;
    /* an empty schema_url would not be written */
    return bytes[at] == URL && end - at > 2 && behind(bytes, at, end) == end ? at : -1;
}

/* Add a part; takes both references. -1 on errors, 0 when it is not plain, 1. */
static int add(struct parts *parts, PyObject *header, PyObject *items) {
    if (parts->count == parts->room) {
        Py_ssize_t room = parts->room * 2 + 8;
        struct part *list = PyMem_Realloc(parts->list, (size_t)room * sizeof *list);
        if (!list) {
            Py_XDECREF(header);
            Py_XDECREF(items);
            PyErr_NoMemory();
            return -1;
        }
        parts->list = list;
        parts->room = room;
    }
    parts->list[parts->count++] = (struct part){header, items, 0, 0, 0};
    return header && PyBytes_CheckExact(header) && (!items || PyList_CheckExact(items));
}

/* All groups and scopes. -1 on errors, 0 when something is not plain, 1. */
static int collect(struct parts *parts, PyObject *groups) {
    for (Py_ssize_t i = 0; i < PyList_Size(groups); i++) {
        PyObject *group = PyList_GetItem(groups, i);
        Py_INCREF(group);
        PyObject *header = PyObject_GetAttrString(group, "header"), *scopes = PyObject_GetAttrString(group, "scopes");
        Py_DECREF(group);
        Py_ssize_t place = parts->count;
        int good = header && scopes ? add(parts, header, NULL) : -1;
        if (!header || !scopes) Py_XDECREF(header);
        if (good > 0) good = PyList_CheckExact(scopes);
        for (Py_ssize_t j = 0; good > 0 && j < PyList_Size(scopes); j++) {
            PyObject *scope = PyList_GetItem(scopes, j);
            Py_INCREF(scope);
            PyObject *inner = PyObject_GetAttrString(scope, "header");
            PyObject *items = inner ? PyObject_GetAttrString(scope, "items") : NULL;
            Py_DECREF(scope);
            if (items) {
                good = add(parts, inner, items);
            } else {
                Py_XDECREF(inner);
                good = -1;
            }
        }
        Py_XDECREF(scopes);
        if (good <= 0) return good;
        parts->list[place].scopes = parts->count - place - 1;
    }
    return 1;
}

/* Measure all parts; the size of the whole, -1 when something is not plain. Runs no Python code, as `write_all`. */
static Py_ssize_t measure(struct parts *parts) {
    Py_ssize_t whole = 0;
    struct part *group = NULL;
    Py_ssize_t left = 0;
    for (Py_ssize_t i = 0; i < parts->count; i++) {
        struct part *part = &parts->list[i];
        part->size = PyBytes_Size(part->header);
        if ((part->split = split_of(part->header)) < 0) return -1;
        if (!part->items) {
            group = part;
            left = part->scopes;
        } else {
            for (Py_ssize_t j = 0, count = PyList_Size(part->items); j < count; j++) {
                PyObject *item = PyList_GetItem(part->items, j);
                if (!PyBytes_CheckExact(item)) return -1;
                Py_ssize_t size = PyBytes_Size(item);
                part->size += 1 + varint_size((uint64_t)size) + size;
            }
            group->size += 1 + varint_size((uint64_t)part->size) + part->size;
            left--;
        }
        if (!left) whole += 1 + varint_size((uint64_t)group->size) + group->size;
    }
    return whole;
}

/* What stands behind the members: the schema_url. */
static char *put_rest(char *at, const struct part *part) {
    return put_bytes(at, PyBytes_AsString(part->header) + part->split, PyBytes_Size(part->header) - part->split);
}

static char *put_scope(char *at, const struct part *part) {
    at = put_field(at, MEMBER, (uint64_t)part->size);
    at = put_bytes(at, PyBytes_AsString(part->header), part->split);
    for (Py_ssize_t j = 0, count = PyList_Size(part->items); j < count; j++) {
        PyObject *item = PyList_GetItem(part->items, j);
        Py_ssize_t size = PyBytes_Size(item);
        at = put_field(at, MEMBER, (uint64_t)size);
        at = put_bytes(at, PyBytes_AsString(item), size);
    }
    return put_rest(at, part);
}

static void write_all(char *at, const struct parts *parts) {
    const struct part *part = parts->list, *end = part + parts->count;
    while (part < end) {
        const struct part *group = part++;
        at = put_field(at, GROUP, (uint64_t)group->size);
        at = put_bytes(at, PyBytes_AsString(group->header), group->split);
        for (Py_ssize_t i = 0; i < group->scopes; i++) at = put_scope(at, part++);
        at = put_rest(at, group);
    }
}

/* encode(groups) -> bytes, or None when that is for protobuf to do. */
static PyObject *model_encode(PyObject *Py_UNUSED(module), PyObject *groups) {
    if (!PyList_CheckExact(groups)) Py_RETURN_NONE;
    struct parts parts = {NULL, 0, 0};
    PyObject *encoded = NULL;
    int good = collect(&parts, groups);
    Py_ssize_t size = good > 0 ? measure(&parts) : -1;
    if (size >= 0) {
        encoded = PyBytes_FromStringAndSize(NULL, size);
        if (encoded) write_all(PyBytes_AsString(encoded), &parts);
    } else if (good >= 0) {
        encoded = Py_NewRef(Py_None);
    }
    for (Py_ssize_t i = 0; i < parts.count; i++) {
        Py_XDECREF(parts.list[i].header);
        Py_XDECREF(parts.list[i].items);
    }
    PyMem_Free(parts.list);
    return encoded;
}

static PyMethodDef methods[] = {{"encode", model_encode, METH_O, "One request of these groups, None when they are not plain."},
                                {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_model", "Encodes batches in one copy.", 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__model(void) { return PyModuleDef_Init(&definition); }
