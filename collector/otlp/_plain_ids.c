/* Loops over trace ids: `select` and `pack` choose items by them, `fresh` tells which are new and what they say by themselves. */

#include "_plain.h"

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

static PyMethodDef functions[] = {{"select", plain_select, METH_VARARGS, select_doc},
                                  {"fresh", plain_fresh, METH_VARARGS, fresh_doc},
                                  {"pack", plain_pack, METH_VARARGS, pack_doc},
                                  {NULL, NULL, 0, NULL}};

int add_ids(PyObject *module) { return PyModule_AddFunctions(module, functions); }
