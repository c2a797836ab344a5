/* Plain OTLP JSON to protobuf in one pass: what ordinary SDKs send of spans and log records.

   Plain is what this file can read without a doubt: known lowerCamelCase keys, each once; integer enums; integers as digits, in
   quotes or not; hex ids of their length; valid UTF-8; the header of a group or scope before its members. Anything else, valid
   JSON or not, is "not plain": the Python path (collector.otlp.mapping) reads the request from its beginning and decides. So
   there is one implementation of errors, of leniency and of what is counted, and what is wrong here can only cost time.

   The text is a bytes object, so a zero byte follows its end: looking at one byte needs no check of the border, all else does.
   Fields are written in the text's order. A request is read in steps that end between two items: a large one may be left there.

   collector.otlp.transcode is the Python side. Keys and numbers: opentelemetry-proto, trace.proto, logs.proto, common.proto.
   Longer than usual, because one pass cannot be cut where the compiler must see all of it. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>

#include "_text.h"

enum kind { TEXT, ID16, ID8, TIME, COUNT, FLAGS, ENUM, BOOL, INTEGER, REAL, OBJECT, LIST, MEMBERS, LATER };
enum message { ANY_VALUE, ARRAY, KEY_VALUES, KEY_VALUE, RESOURCE, SCOPE, EVENT, LINK, STATUS, SPAN, RECORD,
               TRACES, TRACE_GROUP, TRACE_SCOPE, LOGS, LOG_GROUP, LOG_SCOPE, MESSAGES };
enum { FIELDS = 17, DEEPEST = 32, LEVELS = 3 };
enum { FAILED = -1, ODD = 0, GOOD = 1 };

struct field {
    const char *name;
    uint8_t size, number, kind, message;
};

#define FIELD(name, number, ...) {name, sizeof name - 1, number, __VA_ARGS__}

/* In the order in which SDKs write them, because the search for a key begins behind the last one. */
static const struct field SCHEMA[MESSAGES][FIELDS] = {
    [ANY_VALUE] = {FIELD("stringValue", 1, TEXT, 0), FIELD("intValue", 3, INTEGER, 0), FIELD("boolValue", 2, BOOL, 0),
                   FIELD("doubleValue", 4, REAL, 0), FIELD("arrayValue", 5, OBJECT, ARRAY),
                   FIELD("kvlistValue", 6, OBJECT, KEY_VALUES)},
    [ARRAY] = {FIELD("values", 1, LIST, ANY_VALUE)},
    [KEY_VALUES] = {FIELD("values", 1, LIST, KEY_VALUE)},
    [KEY_VALUE] = {FIELD("key", 1, TEXT, 0), FIELD("value", 2, OBJECT, ANY_VALUE)},
    [RESOURCE] = {FIELD("attributes", 1, LIST, KEY_VALUE), FIELD("droppedAttributesCount", 2, COUNT, 0)},
    [SCOPE] = {FIELD("name", 1, TEXT, 0), FIELD("version", 2, TEXT, 0), FIELD("attributes", 3, LIST, KEY_VALUE),
               FIELD("droppedAttributesCount", 4, COUNT, 0)},
    [EVENT] = {FIELD("timeUnixNano", 1, TIME, 0), FIELD("name", 2, TEXT, 0), FIELD("attributes", 3, LIST, KEY_VALUE),
               FIELD("droppedAttributesCount", 4, COUNT, 0)},
    [LINK] = {FIELD("traceId", 1, ID16, 0), FIELD("spanId", 2, ID8, 0), FIELD("traceState", 3, TEXT, 0),
              FIELD("attributes", 4, LIST, KEY_VALUE), FIELD("droppedAttributesCount", 5, COUNT, 0), FIELD("flags", 6, FLAGS, 0)},
    [STATUS] = {FIELD("message", 2, TEXT, 0), FIELD("code", 3, ENUM, 0)},
    [SPAN] = {FIELD("traceId", 1, ID16, 0), FIELD("spanId", 2, ID8, 0), FIELD("traceState", 3, TEXT, 0),
              FIELD("parentSpanId", 4, ID8, 0), FIELD("name", 5, TEXT, 0), FIELD("kind", 6, ENUM, 0),
              FIELD("startTimeUnixNano", 7, TIME, 0), FIELD("endTimeUnixNano", 8, TIME, 0),
              FIELD("attributes", 9, LIST, KEY_VALUE), FIELD("droppedAttributesCount", 10, COUNT, 0),
              FIELD("events", 11, LIST, EVENT), FIELD("droppedEventsCount", 12, COUNT, 0), FIELD("links", 13, LIST, LINK),
              FIELD("droppedLinksCount", 14, COUNT, 0), FIELD("status", 15, OBJECT, STATUS), FIELD("flags", 16, FLAGS, 0)},
    [RECORD] = {FIELD("timeUnixNano", 1, TIME, 0), FIELD("observedTimeUnixNano", 11, TIME, 0),
                FIELD("severityNumber", 2, ENUM, 0), FIELD("severityText", 3, TEXT, 0), FIELD("body", 5, OBJECT, ANY_VALUE),
                FIELD("attributes", 6, LIST, KEY_VALUE), FIELD("droppedAttributesCount", 7, COUNT, 0),
                FIELD("flags", 8, FLAGS, 0), FIELD("traceId", 9, ID16, 0), FIELD("spanId", 10, ID8, 0),
                FIELD("eventName", 12, TEXT, 0)},
    [TRACES] = {FIELD("resourceSpans", 1, MEMBERS, 0)},
    [TRACE_GROUP] = {FIELD("resource", 1, OBJECT, RESOURCE), FIELD("scopeSpans", 2, MEMBERS, 0), FIELD("schemaUrl", 3, LATER, 0)},
    [TRACE_SCOPE] = {FIELD("scope", 1, OBJECT, SCOPE), FIELD("spans", 2, MEMBERS, 0), FIELD("schemaUrl", 3, LATER, 0)},
    [LOGS] = {FIELD("resourceLogs", 1, MEMBERS, 0)},
    [LOG_GROUP] = {FIELD("resource", 1, OBJECT, RESOURCE), FIELD("scopeLogs", 2, MEMBERS, 0), FIELD("schemaUrl", 3, LATER, 0)},
    [LOG_SCOPE] = {FIELD("scope", 1, OBJECT, SCOPE), FIELD("logRecords", 2, MEMBERS, 0), FIELD("schemaUrl", 3, LATER, 0)},
};

/* What stands between two quotes. */
struct string {
    const uint8_t *at, *end;
    int escaped;
};

/* A message that is being written: where its length stands, and how many bytes were left for that. */
struct open {
    size_t at;
    unsigned width;
};

/* The request (0), a group (1) or a scope (2) that is being read: its keys so far, and what is written when it ends. */
struct level {
    struct open open;
    struct string url;
    unsigned seen, next;
};

typedef struct {
    PyObject_HEAD
    PyObject *text;
    const uint8_t *at, *end;
    uint8_t *out;
    size_t size, room;
    struct level levels[LEVELS];
    unsigned level, signal;
    unsigned items, most_items, nested, most_nested, mark, most_inside;
    int members, fresh, done, failed; /* inside an array; right behind a bracket; at the end; not to go on */
} Transcoder;

/* Make room for `more` bytes. */
static inline int grow(Transcoder *self, size_t more) {
    if (self->room - self->size >= more) return GOOD;
    size_t room = self->room * 2 + more;
    uint8_t *out = PyMem_Realloc(self->out, room);
    if (!out) {
        PyErr_NoMemory();
        return FAILED;
    }
    self->out = out;
    self->room = room;
    return GOOD;
}

enum { LONGEST_VARINT = 10, LONGEST_TAG = 2 };

/* These three write where `grow` has made room. */
static inline void put_varint(Transcoder *self, uint64_t value) {
    while (value > 127) {
        self->out[self->size++] = (uint8_t)(value | 128);
        value >>= 7;
    }
    self->out[self->size++] = (uint8_t)value;
}

static inline void put_tag(Transcoder *self, unsigned number, unsigned wire) { put_varint(self, number << 3 | wire); }

static inline void put_fixed(Transcoder *self, uint64_t value, unsigned bytes) {
    for (; bytes--; value >>= 8) self->out[self->size++] = (uint8_t)value;
}

static inline unsigned varint_width(size_t value) {
    unsigned width = 1;
    while (value >>= 7) width++;
    return width;
}

/* Begin a message of about `guess` bytes. */
static inline int begin(Transcoder *self, unsigned number, size_t guess, struct open *open) {
    open->width = varint_width(guess);
    if (grow(self, LONGEST_TAG + open->width) == FAILED) return FAILED;
    put_tag(self, number, 2);
    open->at = self->size;
    self->size += open->width;
    return GOOD;
}

/* End it: its length is known now, and what was left for it may be too much or too little. */
static inline int finish(Transcoder *self, const struct open *open) {
    size_t start = open->at + open->width, size = self->size - start;
    unsigned width = varint_width(size);
    if (width != open->width) {
        if (grow(self, LONGEST_VARINT) == FAILED) return FAILED;
        memmove(self->out + open->at + width, self->out + start, size);
    }
    self->size = open->at;
    put_varint(self, size);
    self->size += size;
    return GOOD;
}

/* The next character that is no white space; it is not stepped over. */
static inline uint8_t peek(Transcoder *self) {
    while (*self->at == ' ' || *self->at == '\n' || *self->at == '\t' || *self->at == '\r') self->at++;
    return *self->at;
}

/* Step over white space and this character; 0 when another one stands there. */
static inline int take(Transcoder *self, uint8_t wanted) {
    if (*self->at != wanted && peek(self) != wanted) return 0;
    self->at++;
    return 1;
}

/* Step over white space and this word. */
static inline int take_word(Transcoder *self, const char *word, size_t size) {
    if (peek(self) != (uint8_t)*word || (size_t)(self->end - self->at) < size || memcmp(self->at, word, size)) return 0;
    self->at += size;
    return 1;
}

#define EVERY(byte) (0x0101010101010101u * (byte))

/* Up to the closing quote. Returns 0 when there is none, at control characters and at invalid UTF-8. */
static inline int read_string(Transcoder *self, struct string *out) {
    if (!take(self, '"')) return 0;
    const uint8_t *at = self->at, *end = self->end;
    uint64_t high = 0, eight, found;
    out->at = at;
    out->escaped = 0;
    for (;;) {
        for (; end - at >= 8; at += 8) {
            memcpy(&eight, at, 8);
            high |= eight;
            uint64_t quote = eight ^ EVERY('"'), slash = eight ^ EVERY('\\');
            found = ((quote - EVERY(1)) | (slash - EVERY(1)) | (eight - EVERY(' '))) & ~eight & EVERY(128);
            if (found) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
                at += __builtin_ctzll(found) / 8;
#endif
                break;
            }
        }
        while (at < end && *at != '"' && *at != '\\' && *at >= ' ') high |= *at++;
        if (at >= end || *at < ' ') return 0;
        if (*at == '"') break;
        if (end - at < 2) return 0;
        out->escaped = 1;
        at += 2;
    }
    out->end = at;
    self->at = at + 1;
    return !(high & EVERY(128)) || is_text(out->at, at);
}

/* The value of each hexadecimal digit plus one; 0 for what is none. */
static const uint8_t HEX[256] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,  ['8'] = 9,  ['9'] = 10, ['a'] = 11,
    ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16, ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

static const uint8_t ESCAPES[256] = {['"'] = '"',  ['\\'] = '\\', ['/'] = '/',  ['b'] = '\b',
                                     ['f'] = '\f', ['n'] = '\n',  ['r'] = '\r', ['t'] = '\t'};

/* The number in four hexadecimal digits. */
static inline int read_unit(const uint8_t *at, const uint8_t *end, uint32_t *unit) {
    *unit = 0;
    if (end - at < 4) return 0;
    for (unsigned n = 0; n < 4; n++) {
        if (!HEX[at[n]]) return 0;
        *unit = *unit << 4 | (uint32_t)(HEX[at[n]] - 1);
    }
    return 1;
}

/* The character behind `\u`, of one unit or two. Returns how many bytes of text that were, 0 for half a pair. */
static inline unsigned read_character(const uint8_t *at, const uint8_t *end, uint32_t *character) {
    uint32_t low;
    if (!read_unit(at, end, character)) return 0;
    if (*character < 0xD800 || *character > 0xDFFF) return 4;
    if (*character > 0xDBFF || end - at < 6 || at[4] != '\\' || at[5] != 'u' || !read_unit(at + 6, end, &low)) return 0;
    if (low < 0xDC00 || low > 0xDFFF) return 0;
    *character = 0x10000 + ((*character - 0xD800) << 10) + (low - 0xDC00);
    return 10;
}

static inline void put_character(Transcoder *self, uint32_t c) {
    uint8_t *out = self->out + self->size;
    unsigned more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint8_t FIRST[] = {0, 0xC0, 0xE0, 0xF0};
    self->size += more + 1;
    for (unsigned n = more; n; n--, c >>= 6) out[n] = (uint8_t)(0x80 | (c & 63));
    *out = (uint8_t)(FIRST[more] | c);
}

/* Write what a string with escapes means, into room that was made; it is never longer than its text. */
static int put_unescaped(Transcoder *self, const struct string *text) {
    for (const uint8_t *at = text->at; at < text->end;) {
        const uint8_t *slash = memchr(at, '\\', (size_t)(text->end - at)), *stop = slash ? slash : text->end;
        memcpy(self->out + self->size, at, (size_t)(stop - at));
        self->size += (size_t)(stop - at);
        if (!slash) break;
        at = slash + 2; /* read_string has seen the character behind the slash */
        if (ESCAPES[slash[1]]) {
            self->out[self->size++] = ESCAPES[slash[1]];
            continue;
        }
        uint32_t character;
        unsigned used = slash[1] == 'u' ? read_character(at, text->end, &character) : 0;
        if (!used) return ODD;
        put_character(self, character);
        at += used;
    }
    return GOOD;
}

static inline int put_string(Transcoder *self, unsigned number, const struct string *text) {
    size_t size = (size_t)(text->end - text->at);
    if (grow(self, LONGEST_TAG + LONGEST_VARINT + size) == FAILED) return FAILED;
    if (text->escaped) {
        struct open open;
        if (begin(self, number, size, &open) == FAILED || grow(self, size) == FAILED) return FAILED;
        int found = put_unescaped(self, text);
        return found == GOOD ? finish(self, &open) : found;
    }
    put_tag(self, number, 2);
    put_varint(self, size);
    memcpy(self->out + self->size, text->at, size);
    self->size += size;
    return GOOD;
}

/* An id: hexadecimal digits for exactly `size` bytes, or none at all. */
static inline int read_id(Transcoder *self, unsigned number, unsigned size) {
    if (!take(self, '"')) return ODD;
    if (*self->at == '"') {
        self->at++;
        return GOOD;
    }
    if ((size_t)(self->end - self->at) <= 2 * size || self->at[2 * size] != '"') return ODD;
    if (grow(self, LONGEST_TAG + 1 + size) == FAILED) return FAILED;
    put_tag(self, number, 2);
    put_varint(self, size);
    for (unsigned n = 0; n < size; n++, self->at += 2) {
        if (!HEX[self->at[0]] || !HEX[self->at[1]]) return ODD;
        self->out[self->size++] = (uint8_t)((HEX[self->at[0]] - 1) << 4 | (HEX[self->at[1]] - 1));
    }
    self->at++;
    return GOOD;
}

enum { MOST_DIGITS = 19 }; /* what always fits in 64 bits */

/* Digits, in quotes where that is allowed; what follows them is the caller's business. */
static inline int read_digits(Transcoder *self, int quotable, int *negative, uint64_t *value) {
    int quoted = peek(self) == '"' && quotable;
    self->at += quoted;
    *negative = *self->at == '-';
    self->at += *negative;
    const uint8_t *start = self->at;
    for (*value = 0; *self->at >= '0' && *self->at <= '9'; self->at++) {
        if (self->at - start == MOST_DIGITS) return ODD;
        *value = *value * 10 + (uint64_t)(*self->at - '0');
    }
    if (self->at == start || (!quoted && *start == '0' && self->at - start > 1)) return ODD;
    if (!quoted) return GOOD;
    return *self->at++ == '"' ? GOOD : ODD;
}

static inline int read_integer(Transcoder *self, const struct field *field, int present) {
    int negative;
    uint64_t value;
    if (read_digits(self, field->kind != ENUM, &negative, &value) != GOOD) return ODD;
    if (field->kind == INTEGER) {
        if (value > INT64_MAX) return ODD;
        if (negative) value = 0 - value;
    } else if (negative || (field->kind != TIME && value > (field->kind == ENUM ? INT32_MAX : UINT32_MAX))) {
        return ODD;
    }
    if (!value && !present) return GOOD;
    if (grow(self, LONGEST_TAG + LONGEST_VARINT) == FAILED) return FAILED;
    if (field->kind == TIME) {
        put_tag(self, field->number, 1);
        put_fixed(self, value, 8);
    } else if (field->kind == FLAGS) {
        put_tag(self, field->number, 5);
        put_fixed(self, value, 4);
    } else {
        put_tag(self, field->number, 0);
        put_varint(self, value);
    }
    return GOOD;
}

static inline void skip_digits(const uint8_t **at) {
    while (**at >= '0' && **at <= '9') ++*at;
}

enum { LONGEST_REAL = 64 };

/* The end of the number that begins here, by JSON's grammar; NULL when it is none, a long one or minus zero. */
static const uint8_t *end_of_real(const uint8_t *at) {
    const uint8_t *start = at, *digits;
    if (*at == '-') at++;
    digits = at;
    skip_digits(&at);
    if (at == digits || (*digits == '0' && at - digits > 1)) return NULL;
    if (*at == '.') {
        digits = ++at;
        skip_digits(&at);
        if (at == digits) return NULL;
    } else if (*start == '-' && *digits == '0') {
        return NULL;
    }
    if (*at == 'e' || *at == 'E') {
        at++;
        if (*at == '+' || *at == '-') at++;
        digits = at;
        skip_digits(&at);
        if (at == digits) return NULL;
    }
    return at - start > LONGEST_REAL ? NULL : at;
}

static int read_real(Transcoder *self, unsigned number) {
    (void)peek(self);
    const uint8_t *end = end_of_real(self->at);
    if (!end) return ODD;
    char *stopped;
    double value = PyOS_string_to_double((const char *)self->at, &stopped, NULL);
    if (value == -1.0 && PyErr_Occurred()) return FAILED;
    if ((const uint8_t *)stopped != end || !isfinite(value)) return ODD;
    self->at = end;
    uint64_t bits;
    memcpy(&bits, &value, 8);
    if (grow(self, LONGEST_TAG + 8) == FAILED) return FAILED;
    put_tag(self, number, 1);
    put_fixed(self, bits, 8);
    return GOOD;
}

static int read_bool(Transcoder *self, unsigned number) {
    int value = take_word(self, "true", 4);
    if (!value && !take_word(self, "false", 5)) return ODD;
    if (grow(self, LONGEST_TAG + 1) == FAILED) return FAILED;
    put_tag(self, number, 0);
    self->out[self->size++] = (uint8_t)value;
    return GOOD;
}

/* A key of this message and its colon, sought from `*next` on; NULL when it is no known one. */
static inline const struct field *read_key(Transcoder *self, enum message message, unsigned *next) {
    const struct field *fields = SCHEMA[message];
    if (!take(self, '"')) return NULL;
    const uint8_t *at = self->at;
    size_t left = (size_t)(self->end - at);
    for (unsigned tried = 0, n = *next; tried < FIELDS; tried++, n++) {
        if (!fields[n].size) n = 0;
        const struct field *field = &fields[n];
        if (left <= field->size || at[field->size] != '"' || memcmp(at, field->name, field->size)) continue;
        self->at = at + field->size + 1;
        *next = n + 1;
        return take(self, ':') ? field : NULL;
    }
    return NULL;
}

static int read_object(Transcoder *self, enum message message, unsigned depth);

/* One message of a list, or the only one. */
static inline int read_message(Transcoder *self, unsigned number, enum message message, unsigned depth) {
    struct open open;
    if (begin(self, number, 0, &open) == FAILED) return FAILED;
    int found = read_object(self, message, depth + 1);
    return found == GOOD ? finish(self, &open) : found;
}

static int read_list(Transcoder *self, const struct field *field, unsigned depth) {
    if (!take(self, '[')) return ODD;
    if (take(self, ']')) return GOOD;
    do {
        if (++self->nested > self->most_nested || self->nested - self->mark > self->most_inside) return ODD;
        int found = read_message(self, field->number, field->message, depth);
        if (found != GOOD) return found;
    } while (take(self, ','));
    return take(self, ']');
}

/* The value of a key. `present`: a member of a oneof is written even where it is zero or empty. */
static inline int read_value(Transcoder *self, const struct field *field, int present, unsigned depth) {
    struct string text;
    switch (field->kind) {
    case TEXT:
        if (!read_string(self, &text)) return ODD;
        return present || text.at < text.end ? put_string(self, field->number, &text) : GOOD;
    case ID16: return read_id(self, field->number, 16);
    case ID8: return read_id(self, field->number, 8);
    case BOOL: return read_bool(self, field->number);
    case REAL: return read_real(self, field->number);
    case OBJECT: return read_message(self, field->number, field->message, depth);
    case LIST: return read_list(self, field, depth);
    default: return read_integer(self, field, present);
    }
}

/* An object and what it holds, into the message that was begun. */
static int read_object(Transcoder *self, enum message message, unsigned depth) {
    unsigned seen = 0, next = 0, filled = 0;
    if (depth > DEEPEST || !take(self, '{')) return ODD;
    if (take(self, '}')) return GOOD;
    do {
        const struct field *field = read_key(self, message, &next);
        if (!field || seen >> field->number & 1) return ODD;
        seen |= 1u << field->number;
        if (take_word(self, "null", 4)) continue;
        if (message == ANY_VALUE && filled++) return ODD;                             /* the last one would count */
        if (message == KEY_VALUE && field->number == 1 && seen >> 2 & 1) return ODD;  /* the key is written first */
        int found = read_value(self, field, message == ANY_VALUE, depth);
        if (found != GOOD) return found;
    } while (take(self, ','));
    return take(self, '}');
}

static inline enum message message_of(const Transcoder *self) { return (self->signal == 1 ? TRACES : LOGS) + self->level; }

/* One item: a span or a log record. */
static int read_item(Transcoder *self) {
    if (++self->items > self->most_items) return ODD;
    self->mark = self->nested;
    return read_message(self, 2, self->signal == 1 ? SPAN : RECORD, 0);
}

enum { DENSITY = 2 }; /* a message takes about half of its text */

/* The next group, scope or item of an open array, or the array's end. */
static int read_member(Transcoder *self) {
    int fresh = self->fresh;
    self->fresh = 0;
    if (take(self, ']')) {
        self->members = 0;
        return GOOD;
    }
    if (!fresh && !take(self, ',')) return ODD;
    if (self->level == LEVELS - 1) return read_item(self);
    if (!take(self, '{')) return ODD;
    self->mark = self->nested;
    if (++self->nested > self->most_nested) return ODD;
    struct level *level = &self->levels[++self->level];
    memset(level, 0, sizeof *level);
    self->members = 0;
    self->fresh = 1;
    return begin(self, self->level, (size_t)(self->end - self->at) / DENSITY, &level->open);
}

/* The end of the request, of a group or of a scope. */
static int leave(Transcoder *self) {
    struct level *level = &self->levels[self->level];
    self->fresh = 0;
    if (!self->level) {
        self->done = peek(self) == 0 && self->at == self->end;
        return self->done;
    }
    self->members = 1;
    self->level--;
    if (level->url.at < level->url.end) {
        int found = put_string(self, 3, &level->url);
        if (found != GOOD) return found;
    }
    return finish(self, &level->open);
}

/* The next key of the request, of a group or of a scope, or its end. */
static int read_entry(Transcoder *self) {
    struct level *level = &self->levels[self->level];
    if (take(self, '}')) return leave(self);
    if (!self->fresh && !take(self, ',')) return ODD;
    self->fresh = 0;
    const struct field *field = read_key(self, message_of(self), &level->next);
    if (!field || level->seen >> field->number & 1) return ODD;
    level->seen |= 1u << field->number;
    if (take_word(self, "null", 4)) return GOOD;
    if (field->kind == MEMBERS) {
        self->members = self->fresh = 1;
        return take(self, '[');
    }
    if (field->kind == LATER) return read_string(self, &level->url);
    if (level->seen >> 2 & 1) return ODD; /* the header is written first */
    return read_value(self, field, 0, 0);
}

PyDoc_STRVAR(advance_doc, "advance(size, /)\n--\n\n"
                          "Read on, about `size` bytes. Returns the encoded request at its end, False before, None when it is not\n"
                          "plain.");

static PyObject *advance(PyObject *object, PyObject *argument) {
    Transcoder *self = (Transcoder *)object;
    size_t size = PyLong_AsSize_t(argument);
    if (size == (size_t)-1 && PyErr_Occurred()) return NULL;
    const uint8_t *until = size < (size_t)(self->end - self->at) ? self->at + size : self->end;
    int found = self->failed ? ODD : GOOD;
    while (found == GOOD && !self->done) {
        if (self->members && self->at > until) Py_RETURN_FALSE;
        found = self->members ? read_member(self) : read_entry(self);
    }
    self->failed = found != GOOD;
    if (found == GOOD) return PyBytes_FromStringAndSize((const char *)self->out, (Py_ssize_t)self->size);
    if (found == FAILED) return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(transcoder_doc,
             "Transcoder(signal, text, items, nested, inside, /)\n--\n\n"
             "Reads one JSON request. `signal`: 1 traces, 2 logs; then the most items, the most nested elements in the\n"
             "request and in one item: with more of them it is not plain.");

static PyObject *transcoder_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(keywords)) {
    PyObject *text;
    unsigned signal, items, nested, inside;
    if (!PyArg_ParseTuple(arguments, "ISIII", &signal, &text, &items, &nested, &inside)) return NULL;
    if (signal != 1 && signal != 2) {
        PyErr_SetString(PyExc_ValueError, "signal is 1 or 2");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Transcoder *self = (Transcoder *)allocate(type, 0); /* zeroed */
    if (!self) return NULL;
    self->text = Py_NewRef(text);
    self->at = (const uint8_t *)PyBytes_AsString(text);
    self->end = self->at + PyBytes_Size(text);
    self->signal = signal;
    self->most_items = items;
    self->most_nested = nested;
    self->most_inside = inside;
    self->fresh = 1;
    if (grow(self, (size_t)(self->end - self->at) / DENSITY + 1) == GOOD && !take(self, '{')) self->failed = 1;
    if (self->out) return (PyObject *)self;
    Py_DECREF(self);
    return NULL;
}

static void transcoder_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(((Transcoder *)self)->out);
    Py_XDECREF(((Transcoder *)self)->text);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {{"advance", advance, METH_O, advance_doc}, {NULL, NULL, 0, NULL}};

static PyType_Slot type_slots[] = {{Py_tp_new, transcoder_new},
                                   {Py_tp_dealloc, transcoder_dealloc},
                                   {Py_tp_methods, methods},
                                   {Py_tp_doc, (void *)transcoder_doc},
                                   {0, NULL}};

static PyType_Spec spec = {"collector.otlp._json.Transcoder", sizeof(Transcoder), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, type_slots};

static int json_exec(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!type) return -1;
    int failed = PyModule_AddObjectRef(module, "Transcoder", type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, json_exec}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_json", "Plain OTLP JSON to protobuf.", 0, NULL, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__json(void) { return PyModuleDef_Init(&definition); }
