/* Settles the calls of a request one after the other, in C: was it counted before, what did it cost, its span's new bytes, its
   place in the books; and adds up what was counted.

   What is settled here has a plan whose price is known and whose marks allow no doubt. Every other call is handed, at its turn, to
   the Python way, which is the one that decides what is right; here it is only repeated. Nothing is noted of a call before all of
   it is known, so a call that fails half way has left no trace and goes the Python way too.

   collector.processors.llm_cost.together is the Python side. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { RATES = 6, PLANS = 32, TRACE_ID = 16, SHORTEST_ID = 8, LONGEST_ID = 256 };
static const long long DAY = 86400LL * 1000000000;
enum { COUNTED = 1, USAGE_BELOW = 2, NO_ID = 4 }; /* as in dedup.py */
enum { FAILED = -1, SLOW, DONE };
enum { FOUND_CALL = 3, FOUND_ITEMS, FOUND_INDEX, FOUND_SIZE };
enum { END, START, PLAN, ITEM, OWN, PARENT, USAGE, IDENTITY, FIRST, TRACE, CALL_SIZE };

/* What a plan says of all its calls. `plan` and what is in `fixed` live as long as the calls and `fixed` do. */
struct rule {
    PyObject *plan, *fixed, *tally, *calls;
    long long from, until;
    double rates[RATES];
    int flat;
    PyObject *price, *stamp, *counts, *provider;
};

struct run {
    long long arrival;
    double high;
    PyObject *young, *old, *ids, *earlier, *slow, *tally_of, *keep, *fresh;
    struct rule rules[PLANS];
    unsigned known;
    Py_ssize_t counted;
    int changed;
};

/* What was found out about one call. New references, but for `call`. */
struct call {
    PyObject *call, *id, *bytes, *at, *amount, *seconds;
    long own, above;
};

/* The rates of a plan whose price is a sum of counts times rates. Returns 0 with an exception set. */
static int read_rates(PyObject *rates, struct rule *rule) {
    rule->flat = rates != Py_None;
    for (Py_ssize_t n = 0; rule->flat && n < RATES; n++) {
        PyObject *rate = PyTuple_GetItem(rates, n);
        rule->rates[n] = rate ? PyFloat_AsDouble(rate) : -1;
        if (PyErr_Occurred()) return 0;
    }
    return 1;
}

static int read_rule(PyObject *fixed, struct rule *rule) {
    PyObject *rates;
    if (!PyTuple_Check(fixed)) {
        PyErr_SetString(PyExc_TypeError, "what is fixed is a tuple");
        return 0;
    }
    if (!PyArg_ParseTuple(fixed, "LLOOO!OU", &rule->from, &rule->until, &rates, &rule->price, &PyTuple_Type, &rule->stamp,
                          &rule->counts, &rule->provider))
        return 0;
    for (Py_ssize_t n = 0; n < PyTuple_Size(rule->stamp); n++) {
        if (PyBytes_Check(PyTuple_GetItem(rule->stamp, n))) continue;
        PyErr_SetString(PyExc_TypeError, "a stamp is of bytes");
        return 0;
    }
    return read_rates(rates, rule);
}

/* By the interned name: a new one for each look-up would push others out of the interpreter's cache of attributes. */
static PyObject *attribute(PyObject *object, const char *name) {
    PyObject *interned = PyUnicode_InternFromString(name);
    PyObject *value = interned ? PyObject_GetAttr(object, interned) : NULL;
    Py_XDECREF(interned);
    return value;
}

/* The rule of a plan; NULL when it has none or, with an exception set, when something failed. */
static struct rule *rule_of(struct run *run, PyObject *plan) {
    for (unsigned n = 0; n < run->known; n++)
        if (run->rules[n].plan == plan) return &run->rules[n];
    if (run->known == PLANS) return NULL;
    struct rule *rule = &run->rules[run->known];
    memset(rule, 0, sizeof *rule);
    PyObject *fixed = attribute(plan, "fixed");
    if (!fixed || fixed == Py_None || !read_rule(fixed, rule)) {
        Py_XDECREF(fixed);
        return NULL;
    }
    rule->plan = plan;
    rule->fixed = fixed;
    run->known++;
    return rule;
}

/* USD of a usage; below 0, perhaps with an exception set, when that cannot be told. */
static double price_of(const struct rule *rule, PyObject *usage) {
    if (!rule->flat) {
        PyObject *amount = PyObject_CallFunctionObjArgs(rule->price, usage, NULL);
        double value = amount ? PyFloat_AsDouble(amount) : -1;
        Py_XDECREF(amount);
        return value;
    }
    double sum = 0;
    for (Py_ssize_t n = 0; n < RATES - 1; n++) {
        PyObject *count = PyTuple_GetItem(usage, n);
        double value = count ? PyLong_AsDouble(count) : -1;
        if (value < 0) return -1;
        sum = n ? sum + value * rule->rates[n] : value * rule->rates[n]; /* in this order Python adds them up too */
    }
    return sum + rule->rates[RATES - 1];
}

/* An amount as it is written: 12 significant digits. Returns 0 with an exception set. */
static int write_double(double amount, uint8_t out[8]) {
    char *text = PyOS_double_to_string(amount, 'g', 12, 0, NULL);
    if (!text) return 0;
    double rounded = PyOS_string_to_double(text, NULL, NULL);
    PyMem_Free(text);
    uint64_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    for (int n = 0; n < 8; n++) out[n] = (uint8_t)(bits >> 8 * n);
    return !(rounded == -1 && PyErr_Occurred());
}

static uint8_t *put(uint8_t *at, PyObject *bytes) {
    size_t size = (size_t)PyBytes_Size(bytes);
    memcpy(at, PyBytes_AsString(bytes), size);
    return at + size;
}

/* The item, the stamp with the amount between its parts, and `more`. */
static PyObject *joined(PyObject *item, PyObject *stamp, const uint8_t amount[8], PyObject *more) {
    Py_ssize_t parts = PyTuple_Size(stamp), size = PyBytes_Size(item) + PyBytes_Size(more) + 8 * (parts ? parts - 1 : 0);
    for (Py_ssize_t n = 0; n < parts; n++) size += PyBytes_Size(PyTuple_GetItem(stamp, n));
    PyObject *out = PyBytes_FromStringAndSize(NULL, size);
    if (!out) return NULL;
    uint8_t *at = put((uint8_t *)PyBytes_AsString(out), item);
    for (Py_ssize_t n = 0; n < parts; n++) {
        if (n) memcpy(at, amount, 8);
        at = put(n ? at + 8 : at, PyTuple_GetItem(stamp, n));
    }
    put(at, more);
    return out;
}

static PyObject *stamped(const struct rule *rule, PyObject *item, double amount, PyObject *usage) {
    uint8_t written[8];
    if (!PyBytes_Check(item) || !write_double(amount, written)) return NULL;
    PyObject *more = rule->counts == Py_None ? PyBytes_FromStringAndSize(NULL, 0)
                                             : PyObject_CallFunctionObjArgs(rule->counts, usage, NULL);
    PyObject *out = more && PyBytes_Check(more) ? joined(item, rule->stamp, written, more) : NULL;
    Py_XDECREF(more);
    return out;
}

/* The marks of a span in both generations; -1 with an exception set. A trace id alone names no span. */
static long marks_of(const struct run *run, PyObject *span, long *young) {
    *young = 0;
    if (PyBytes_Size(span) <= TRACE_ID) return 0;
    PyObject *marks = PyDict_GetItemWithError(run->young, span);
    if (marks) *young = PyLong_AsLong(marks);
    marks = PyErr_Occurred() ? NULL : PyDict_GetItemWithError(run->old, span);
    long before = marks ? PyLong_AsLong(marks) : 0;
    return PyErr_Occurred() ? -1 : *young | before;
}

/* Whether a call of this id was not seen before; 0, too, with an exception set. */
static int is_new(const struct run *run, PyObject *id) {
    int seen = PyDict_Contains(run->ids, id);
    if (!seen) seen = PyDict_Contains(run->earlier, id);
    return seen == 0;
}

static int are_equal(PyObject *one, PyObject *other) {
    Py_ssize_t size = PyBytes_Size(one);
    return size == PyBytes_Size(other) && memcmp(PyBytes_AsString(one), PyBytes_AsString(other), (size_t)size) == 0;
}

/* Whether nothing speaks against counting a call; a span that is its own parent is left to Python. */
static int may_count(const struct run *run, const struct rule *rule, struct call *out) {
    PyObject *own = PyTuple_GetItem(out->call, OWN), *parent = PyTuple_GetItem(out->call, PARENT);
    PyObject *identity = PyTuple_GetItem(out->call, IDENTITY);
    if (!PyBytes_Check(own) || !PyBytes_Check(parent) || !PyUnicode_Check(identity)) return 0;
    Py_ssize_t size = PyUnicode_GetLength(identity);
    if (size < SHORTEST_ID || size > LONGEST_ID || PyBytes_Size(own) <= TRACE_ID || are_equal(own, parent)) return 0;
    long marks = marks_of(run, own, &out->own), above = marks < 0 ? -1 : marks_of(run, parent, &out->above);
    if (above < 0 || marks & COUNTED || (above & COUNTED && above & NO_ID)) return 0;
    out->id = PyTuple_Pack(2, rule->provider, identity);
    return out->id && is_new(run, out->id);
}

/* Find out what a call cost and how its span looks then. SLOW when that is to be found out in Python, or something failed. */
static int consider(struct run *run, struct call *out, struct rule **found) {
    PyObject *usage = PyTuple_GetItem(out->call, USAGE);
    struct rule *rule = *found = rule_of(run, PyTuple_GetItem(out->call, PLAN));
    if (!rule || !PyTuple_Check(usage)) return SLOW;
    long long start = PyLong_AsLongLong(PyTuple_GetItem(out->call, START));
    long long end = PyLong_AsLongLong(PyTuple_GetItem(out->call, END));
    long long at = start > 0 && start <= run->arrival + DAY ? start : run->arrival; /* as verdict.moment */
    if (PyErr_Occurred() || at < rule->from || at >= rule->until || end < start) return SLOW;
    double amount = price_of(rule, usage);
    if (!(amount >= 0 && amount <= run->high) || !may_count(run, rule, out)) return SLOW;
    out->bytes = stamped(rule, PyTuple_GetItem(out->call, ITEM), amount, usage);
    out->at = at == start ? Py_NewRef(PyTuple_GetItem(out->call, START)) : PyLong_FromLongLong(at);
    out->amount = PyFloat_FromDouble(amount);
    out->seconds = PyFloat_FromDouble((double)(end - start) / 1e9);
    return out->bytes && out->at && out->amount && out->seconds ? DONE : SLOW;
}

static int mark(PyObject *dictionary, PyObject *key, long bits) {
    PyObject *value = PyLong_FromLong(bits);
    int good = value && PyDict_SetItem(dictionary, key, value) == 0;
    Py_XDECREF(value);
    return good;
}

/* Open the tally of a plan. Returns 0 with an exception set. */
static int open_tally(const struct run *run, struct rule *rule) {
    rule->tally = PyObject_CallFunctionObjArgs(run->tally_of, rule->plan, NULL);
    rule->calls = rule->tally ? attribute(rule->tally, "calls") : NULL;
    if (rule->calls && !PyList_Check(rule->calls)) PyErr_SetString(PyExc_TypeError, "calls is a list");
    return rule->calls && PyList_Check(rule->calls);
}

/* Put a call into the books. Returns 0 with an exception set. */
static int enter(struct run *run, struct rule *rule, const struct call *one) {
    PyObject *call = one->call, *trace = PyTuple_GetItem(call, TRACE);
    if (!rule->calls && !open_tally(run, rule)) return 0;
    PyObject *entry = PyTuple_Pack(7, rule->tally, one->at, one->seconds, PyTuple_GetItem(call, FIRST), PyTuple_GetItem(call, USAGE),
                                   one->amount, trace);
    PyObject *kept = entry && PyList_Append(rule->calls, entry) == 0 ? PyObject_CallFunctionObjArgs(run->keep, entry, NULL) : NULL;
    Py_XDECREF(entry);
    Py_XDECREF(kept);
    run->counted++;
    return kept && PySet_Add(run->fresh, trace) == 0;
}

/* Note a call that is settled. Returns 0 with an exception set. */
static int note(struct run *run, struct rule *rule, PyObject *found, const struct call *one) {
    PyObject *own = PyTuple_GetItem(one->call, OWN), *parent = PyTuple_GetItem(one->call, PARENT);
    PyObject *items = PyTuple_GetItem(found, FOUND_ITEMS);
    if (!mark(run->ids, one->id, 1) || !mark(run->young, own, one->own | COUNTED)) return 0;
    if (PyBytes_Size(parent) > TRACE_ID && !mark(run->young, parent, one->above | USAGE_BELOW)) return 0;
    if (!enter(run, rule, one)) return 0;
    run->changed = 1;
    Py_ssize_t index = PyLong_AsSsize_t(PyTuple_GetItem(found, FOUND_INDEX));
    return !PyErr_Occurred() && PyList_SetItem(items, index, Py_NewRef(one->bytes)) == 0;
}

/* What failed goes the Python way, which says what it was; but nobody keeps a signal back. */
static int recovered(void) {
    if (!PyErr_Occurred()) return 1;
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return 0;
    PyErr_Clear();
    return 1;
}

static int settle_slowly(struct run *run, PyObject *found) {
    if (!recovered()) return FAILED;
    PyObject *changed = PyObject_CallFunctionObjArgs(run->slow, found, NULL);
    int truth = changed ? PyObject_IsTrue(changed) : -1;
    Py_XDECREF(changed);
    if (truth > 0) run->changed = 1;
    return truth < 0 ? FAILED : DONE;
}

/* Settle one call. Returns FAILED with an exception set, or DONE. */
static int settle_one(struct run *run, PyObject *found) {
    if (!PyTuple_Check(found) || PyTuple_Size(found) != FOUND_SIZE || !PyList_Check(PyTuple_GetItem(found, FOUND_ITEMS))) {
        PyErr_SetString(PyExc_TypeError, "what was found is a tuple of six, with a list of items");
        return FAILED;
    }
    struct call one = {PyTuple_GetItem(found, FOUND_CALL), NULL, NULL, NULL, NULL, NULL, 0, 0};
    struct rule *rule = NULL;
    int state = SLOW;
    if (PyTuple_Check(one.call) && PyTuple_Size(one.call) == CALL_SIZE) state = consider(run, &one, &rule);
    if (state == DONE && !note(run, rule, found, &one)) state = FAILED;
    if (state == SLOW) state = settle_slowly(run, found);
    Py_XDECREF(one.id);
    Py_XDECREF(one.bytes);
    Py_XDECREF(one.at);
    Py_XDECREF(one.amount);
    Py_XDECREF(one.seconds);
    return state;
}

PyDoc_STRVAR(settle_doc,
             "settle(found, arrival, marks, ids, high, slow, tally_of, keep, fresh, /)\n--\n\n"
             "Settle the calls in `found`, in that order; whether any item was changed, and how many calls were counted here.\n"
             "`arrival`: ns; `marks`, `ids`: young and old entries of Dedup, with room for all; `high`: USD of a call that is dear;\n"
             "`slow(found)`: settles one in Python, whether it changed; `tally_of(plan)`, `keep(call)`, `fresh`: the books.");

static PyObject *calls_settle(PyObject *Py_UNUSED(module), PyObject *arguments) {
    struct run run;
    PyObject *list;
    run.known = 0;
    run.counted = run.changed = 0;
    if (!PyArg_ParseTuple(arguments, "O!L(O!O!)(O!O!)dOOOO!", &PyList_Type, &list, &run.arrival, &PyDict_Type, &run.young,
                          &PyDict_Type, &run.old, &PyDict_Type, &run.ids, &PyDict_Type, &run.earlier, &run.high, &run.slow,
                          &run.tally_of, &run.keep, &PySet_Type, &run.fresh))
        return NULL;
    int good = 1;
    for (Py_ssize_t n = 0; good && n < PyList_Size(list); n++) {
        PyObject *found = Py_NewRef(PyList_GetItem(list, n));
        good = settle_one(&run, found) == DONE;
        Py_DECREF(found);
    }
    for (unsigned n = 0; n < run.known; n++) {
        Py_DECREF(run.rules[n].fixed);
        Py_XDECREF(run.rules[n].tally);
        Py_XDECREF(run.rules[n].calls);
    }
    return good ? Py_BuildValue("Nn", PyBool_FromLong(run.changed), run.counted) : NULL;
}

/* Sums over counted calls. */
struct sums {
    PyObject *latencies, *firsts, *amounts;
    long long earliest, latest, uncached, cache_read, cache_write, output, unsplit;
    Py_ssize_t told, whole;
};

/* A count of a usage; -1 with an exception set. */
static long long count_at(PyObject *usage, Py_ssize_t place) {
    PyObject *count = PyTuple_GetItem(usage, place);
    return count ? PyLong_AsLongLong(count) : -1;
}

static int add_usage(struct sums *sums, PyObject *usage) {
    enum { UNCACHED, READ, FIVE, HOUR, OUTPUT, TOTAL = 12 };
    PyObject *total = PyTuple_GetItem(usage, TOTAL);
    if (!total) return 0;
    sums->told++;
    sums->uncached += count_at(usage, UNCACHED);
    sums->cache_read += count_at(usage, READ);
    sums->cache_write += count_at(usage, FIVE) + count_at(usage, HOUR);
    sums->output += count_at(usage, OUTPUT);
    if (total != Py_None) {
        sums->whole++;
        sums->unsplit += PyLong_AsLongLong(total);
    }
    return !PyErr_Occurred();
}

static int add_call(struct sums *sums, PyObject *call) {
    enum { AT = 1, LATENCY, FIRST_TOKEN, TOLD, AMOUNT };
    if (!PyTuple_Check(call) || PyTuple_Size(call) != 7) {
        PyErr_SetString(PyExc_TypeError, "a call is a tuple of seven");
        return 0;
    }
    long long at = PyLong_AsLongLong(PyTuple_GetItem(call, AT));
    PyObject *first = PyTuple_GetItem(call, FIRST_TOKEN), *usage = PyTuple_GetItem(call, TOLD), *amount = PyTuple_GetItem(call, AMOUNT);
    if (at < sums->earliest) sums->earliest = at;
    if (at > sums->latest) sums->latest = at;
    if (PyErr_Occurred() || PyList_Append(sums->latencies, PyTuple_GetItem(call, LATENCY)) < 0) return 0;
    if (first != Py_None && PyList_Append(sums->firsts, first) < 0) return 0;
    if (amount != Py_None && PyList_Append(sums->amounts, amount) < 0) return 0;
    if (usage == Py_None) return 1;
    if (PyTuple_Check(usage)) return add_usage(sums, usage);
    PyErr_SetString(PyExc_TypeError, "a usage is a tuple");
    return 0;
}

PyDoc_STRVAR(add_up_doc, "add_up(calls, /)\n--\n\n"
                         "What `Tally.sum_up` makes of its calls: latencies, times to the first token and amounts; when the first and\n"
                         "the last began; tokens uncached, read from and written to a cache, of the output, not split; how many\n"
                         "calls told of tokens, and how many of a total only.");

static PyObject *calls_add_up(PyObject *Py_UNUSED(module), PyObject *calls) {
    if (!PyList_Check(calls)) {
        PyErr_SetString(PyExc_TypeError, "calls is a list");
        return NULL;
    }
    struct sums sums = {PyList_New(0), PyList_New(0), PyList_New(0), INT64_MAX, INT64_MIN, 0, 0, 0, 0, 0, 0, 0};
    int good = sums.latencies && sums.firsts && sums.amounts;
    for (Py_ssize_t n = 0; good && n < PyList_Size(calls); n++) good = add_call(&sums, PyList_GetItem(calls, n));
    if (good)
        return Py_BuildValue("NNNLLLLLLLnn", sums.latencies, sums.firsts, sums.amounts, sums.earliest, sums.latest, sums.uncached,
                             sums.cache_read, sums.cache_write, sums.output, sums.unsplit, sums.told, sums.whole);
    Py_XDECREF(sums.latencies);
    Py_XDECREF(sums.firsts);
    Py_XDECREF(sums.amounts);
    return NULL;
}

static PyMethodDef functions[] = {{"settle", calls_settle, METH_VARARGS, settle_doc},
                                  {"add_up", calls_add_up, METH_O, add_up_doc},
                                  {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_calls", "Calls of language models, settled and added up.", 0, functions, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__calls(void) { return PyModuleDef_Init(&definition); }
