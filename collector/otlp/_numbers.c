/* Numbers that may be personal, found in encoded items: what the patterns of collector.otlp.numbers match, every match of them.

   Patterns that begin with any digit leave a regex engine nothing to jump by: it steps through every byte, four times as long as
   through all the words it looks for. Here 64 bytes at once become a bit each: is it a digit, a capital, a tag. A match of any
   pattern shows in a few ands of those bits; only there it is read, by the table of its steps. Every read is bounded by the end
   of the data. Without SSE2 the bits are made one by one, with the same result. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__) && !defined(NUMBERS_BY_BYTE)
#include <emmintrin.h>
#endif

enum {
    DIGIT = 1 << 0, FROM_2_TO_6 = 1 << 1, FROM_2 = 1 << 2, FROM_1 = 1 << 3, THREE = 1 << 4, CAPITAL = 1 << 5, BREAK = 1 << 6,
    DOT = 1 << 7, PARENTHESIS = 1 << 8, CLOSE = 1 << 9, SPACE = 1 << 10, PLUS = 1 << 11, HIGH = 1 << 12, LOW = 1 << 13,
    INT_TAG = 1 << 14, DOUBLE_TAG = 1 << 15, LARGE = 1 << 16, ANY = 1 << 17
};
enum { BLOCK = 64, CAPITAL_OR_DIGIT = CAPITAL | DIGIT, DOTTED = BREAK | DOT, LOOSE = BREAK | DOT | PARENTHESIS };

static uint32_t CLASS[256];

/* From `least` to `most` bytes of a class, as many as there are: no step may go on with what the one before could have taken. */
struct step {
    uint32_t class;
    uint8_t least, most;
};

static const struct step CARD[] = {{FROM_2_TO_6, 1, 1}, {DIGIT, 3, 3}, {BREAK, 0, 1}, {DIGIT, 4, 4}, {BREAK, 0, 1},
                                   {DIGIT, 3, 3}, {BREAK, 0, 1}, {DIGIT, 1, 1}, {0, 0, 0}};
static const struct step CARD_OF_THREE[] = {{THREE, 1, 1}, {DIGIT, 3, 3}, {BREAK, 1, 1}, {DIGIT, 6, 6}, {BREAK, 1, 1},
                                            {DIGIT, 4, 4}, {0, 0, 0}};
static const struct step PHONE_WITH_PLUS[] = {{PLUS, 1, 1}, {FROM_1, 1, 1}, {LOOSE, 0, 2}, {DIGIT, 1, 1}, {LOOSE, 0, 2},
                                              {DIGIT, 1, 1}, {LOOSE, 0, 2}, {DIGIT, 1, 1}, {LOOSE, 0, 2}, {DIGIT, 1, 1},
                                              {0, 0, 0}};
static const struct step PHONE[] = {{FROM_2, 1, 1}, {DIGIT, 2, 2}, {DOTTED, 1, 1}, {FROM_2, 1, 1}, {DIGIT, 2, 2},
                                    {DOTTED, 1, 1}, {DIGIT, 4, 4}, {0, 0, 0}};
static const struct step PHONE_IN_PARENTHESES[] = {{FROM_2, 1, 1}, {DIGIT, 2, 2}, {CLOSE, 1, 1}, {SPACE, 0, 1}, {FROM_2, 1, 1},
                                                   {DIGIT, 2, 2}, {DOTTED, 1, 1}, {DIGIT, 4, 4}, {0, 0, 0}};
static const struct step SSN[] = {{DIGIT, 3, 3}, {BREAK, 1, 1}, {DIGIT, 2, 2}, {BREAK, 1, 1}, {DIGIT, 4, 4}, {0, 0, 0}};
static const struct step IBAN[] = {{CAPITAL, 2, 2}, {DIGIT, 2, 2}, {BREAK, 0, 1}, {CAPITAL_OR_DIGIT, 4, 4}, {BREAK, 0, 1},
                                   {CAPITAL_OR_DIGIT, 4, 4}, {BREAK, 0, 1}, {CAPITAL_OR_DIGIT, 3, 3}, {0, 0, 0}};
static const struct step INT64[] = {{INT_TAG, 1, 1}, {HIGH, 5, 9}, {LOW, 1, 1}, {0, 0, 0}};
static const struct step DOUBLE[] = {{DOUBLE_TAG, 1, 1}, {ANY, 7, 7}, {LARGE, 1, 1}, {0, 0, 0}};

enum kind { IS_CARD, IS_PHONE, IS_SSN, IS_IBAN, IS_INT64, IS_DOUBLE, KINDS };

struct match {
    Py_ssize_t start, end;
    int kind;
};

struct search {
    const uint8_t *data, *end;
    struct match *found;
    Py_ssize_t count, limit;
    int wanted; /* a bit for each kind */
};

/* Note a match of the steps at `at`. */
static void try(struct search *search, enum kind kind, const struct step *step, const uint8_t *at) {
    const uint8_t *start = at;
    if (!(search->wanted & 1 << kind) || search->count > search->limit) return;
    for (; step->most; step++) {
        unsigned taken = 0;
        while (taken < step->most && at < search->end && CLASS[*at] & step->class) at++, taken++;
        if (taken < step->least) return;
    }
    search->found[search->count++] = (struct match){start - search->data, at - search->data, (int)kind};
}

/* A bit for each of 64 bytes. */
struct bits {
    uint64_t digits, pluses, high, large;
};

#if defined(__SSE2__) && !defined(NUMBERS_BY_BYTE)
static inline uint64_t among(__m128i bytes, char least, char most) {
    __m128i above = _mm_sub_epi8(bytes, _mm_set1_epi8(least));
    __m128i capped = _mm_min_epu8(above, _mm_set1_epi8((char)(most - least)));
    return (uint64_t)(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(above, capped));
}

static inline uint64_t equal(__m128i bytes, char byte) {
    return (uint64_t)(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte)));
}

static inline struct bits bits_of(const uint8_t *at) {
    struct bits bits = {0, 0, 0, 0};
    for (unsigned n = 0; n < BLOCK; n += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(at + n));
        bits.digits |= among(bytes, '0', '9') << n;
        bits.pluses |= equal(bytes, '+') << n;
        bits.high |= (uint64_t)(unsigned)_mm_movemask_epi8(bytes) << n;
        bits.large |= among(_mm_and_si128(bytes, _mm_set1_epi8(127)), 'B', 'C') << n; /* with either sign */
    }
    return bits;
}
#else
static inline struct bits bits_of(const uint8_t *at) {
    struct bits bits = {0, 0, 0, 0};
    for (unsigned n = 0; n < BLOCK; n++) {
        uint32_t class = CLASS[at[n]];
        uint64_t bit = (uint64_t)1 << n;
        if (class & DIGIT) bits.digits |= bit;
        if (class & PLUS) bits.pluses |= bit;
        if (class & HIGH) bits.high |= bit;
        if (class & LARGE) bits.large |= bit;
    }
    return bits;
}
#endif

/* The bits of the bytes `back` before those of `now`. */
static inline uint64_t behind(uint64_t before, uint64_t now, unsigned back) { return now << back | before >> (BLOCK - back); }

static inline unsigned lowest(uint64_t bits) {
#if defined(__GNUC__)
    return (unsigned)__builtin_ctzll(bits);
#else
    unsigned n = 0;
    while (!(bits >> n & 1)) n++;
    return n;
#endif
}

/* What may begin, or have its last four digits, where four digits stand at `at`. */
static void try_digits(struct search *search, const uint8_t *at) {
    ptrdiff_t before = at - search->data;
    uint32_t first = CLASS[*at];
    if (first & FROM_2_TO_6) try(search, IS_CARD, CARD, at);
    if (first & THREE) try(search, IS_CARD, CARD_OF_THREE, at);
    if (before < 7 || !(CLASS[at[-1]] & DOTTED)) return;
    try(search, IS_SSN, SSN, at - 7);
    if (before < 8) return;
    try(search, IS_PHONE, PHONE, at - 8);
    try(search, IS_PHONE, PHONE_IN_PARENTHESES, at - 8);
    if (before < 9) return;
    try(search, IS_PHONE, PHONE_IN_PARENTHESES, at - 9);
}

#define BEHIND(name, back) behind(before->name, now->name, back)

/* Each set bit lies so many bytes behind where a match may begin, in this block or the one before. */
static void try_each(struct search *search, uint64_t bits, const uint8_t *at, unsigned back, enum kind kind, const struct step *step) {
    for (; bits; bits &= bits - 1) {
        ptrdiff_t start = at - search->data + (ptrdiff_t)lowest(bits) - (ptrdiff_t)back;
        if (start >= 0 && CLASS[search->data[start]] & step->class) try(search, kind, step, search->data + start);
    }
}

static void search_block(struct search *search, const uint8_t *at, const struct bits *before, const struct bits *now) {
    uint64_t two = now->digits & BEHIND(digits, 1), third = BEHIND(digits, 2), four = two & third & BEHIND(digits, 3);
    uint64_t high = now->high & BEHIND(high, 1) & BEHIND(high, 2) & BEHIND(high, 3) & BEHIND(high, 4);
    for (; four; four &= four - 1) try_digits(search, at + lowest(four) - 3);
    try_each(search, two & ~third, at, 3, IS_IBAN, IBAN);
    try_each(search, now->digits & BEHIND(pluses, 1), at, 1, IS_PHONE, PHONE_WITH_PLUS);
    try_each(search, high & ~BEHIND(high, 5), at, 5, IS_INT64, INT64);
    try_each(search, now->large, at, 8, IS_DOUBLE, DOUBLE);
}

static void search_all(struct search *search) {
    struct bits before = {0, 0, 0, 0}, now;
    uint8_t rest[BLOCK] = {0};
    const uint8_t *at = search->data;
    for (; search->end - at >= BLOCK && search->count <= search->limit; at += BLOCK) {
        now = bits_of(at);
        search_block(search, at, &before, &now);
        before = now;
    }
    if (at < search->end && search->end - at < BLOCK) {
        memcpy(rest, at, (size_t)(search->end - at));
        now = bits_of(rest);
        search_block(search, at, &before, &now);
    }
}

static PyObject *list_of(const struct search *search, PyObject *names) {
    PyObject *list = PyList_New(0);
    for (Py_ssize_t n = 0; list && n < search->count; n++) {
        const struct match *match = &search->found[n];
        PyObject *one = Py_BuildValue("(Onn)", PyTuple_GetItem(names, match->kind), match->start, match->end);
        if (!one || PyList_Append(list, one) < 0) Py_CLEAR(list);
        Py_XDECREF(one);
    }
    return list;
}

PyDoc_STRVAR(search_doc, "search(data, names, limit, /)\n--\n\n"
                         "(name, start, end) of every match, in no order, one more than `limit` at most.\n"
                         "`names`: what to call card, phone, ssn, iban, int64 and double, None for those that are not wanted.");

static PyObject *numbers_search(PyObject *Py_UNUSED(module), PyObject *arguments) {
    Py_buffer data;
    PyObject *names, *list = NULL;
    struct search search = {NULL, NULL, NULL, 0, 0, 0};
    if (!PyArg_ParseTuple(arguments, "y*O!n", &data, &PyTuple_Type, &names, &search.limit)) return NULL;
    if (PyTuple_Size(names) != KINDS || search.limit < 0 || search.limit >= PY_SSIZE_T_MAX / (Py_ssize_t)sizeof *search.found) {
        PyErr_SetString(PyExc_ValueError, "six names and a limit from 0 on");
        goto done;
    }
    for (int kind = 0; kind < KINDS; kind++) {
        if (!Py_IsNone(PyTuple_GetItem(names, kind))) search.wanted |= 1 << kind;
    }
    search.data = data.buf;
    search.end = search.data + data.len;
    /* at each byte one match of each kind may begin */
    if (search.limit / KINDS > data.len) search.limit = data.len * KINDS;
    search.found = PyMem_Malloc((size_t)(search.limit + 1) * sizeof *search.found);
    if (!search.found) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    search_all(&search);
    Py_END_ALLOW_THREADS
    list = list_of(&search, names);
done:
    PyMem_Free(search.found);
    PyBuffer_Release(&data);
    return list;
}

static void mark(const char *bytes, uint32_t class) {
    for (; *bytes; bytes++) CLASS[(uint8_t)*bytes] |= class;
}

/* The same table however often it is made. */
static int numbers_exec(PyObject *Py_UNUSED(module)) {
    mark("0123456789", DIGIT);
    mark("23456", FROM_2_TO_6);
    mark("23456789", FROM_2);
    mark("123456789", FROM_1);
    mark("3", THREE);
    mark("ABCDEFGHIJKLMNOPQRSTUVWXYZ", CAPITAL);
    mark(" -", BREAK);
    mark(".", DOT);
    mark("()", PARENTHESIS);
    mark(")", CLOSE);
    mark(" ", SPACE);
    mark("+", PLUS);
    mark("BC\xC2\xC3", LARGE);
    for (unsigned byte = 0; byte < 256; byte++) CLASS[byte] |= ANY | (byte > 127 ? HIGH : LOW);
    CLASS[0x18] |= INT_TAG;
    CLASS[0x21] |= DOUBLE_TAG;
    return 0;
}

static PyMethodDef functions[] = {{"search", numbers_search, METH_VARARGS, search_doc}, {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {{Py_mod_exec, numbers_exec}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_numbers", "Numbers that may be personal, found in bytes.", 0, functions, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__numbers(void) { return PyModuleDef_Init(&definition); }
