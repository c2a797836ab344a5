/* Is it valid UTF-8? Shared by the modules written in C. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Whether there is no byte over 127. */
static inline int is_ascii(const uint8_t *at, size_t size) {
    uint64_t bits = 0, eight;
    if (size < 8) {
        uint8_t all = 0;
        while (size) all |= at[--size];
        return all < 0x80;
    }
    for (size_t n = 0; n + 8 <= size; n += 8) {
        memcpy(&eight, at + n, 8);
        bits |= eight;
    }
    memcpy(&eight, at + size - 8, 8);
    return !((bits | eight) & 0x8080808080808080u);
}

/* Whether the text is valid UTF-8 (Unicode 15, table 3-7). */
static int is_text(const uint8_t *at, const uint8_t *end) {
    if (is_ascii(at, (size_t)(end - at))) return 1;
    while (at < end) {
        uint8_t first = *at++;
        if (first < 0x80) continue;
        unsigned more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
        if (first < 0xC2 || first > 0xF4 || end - at < (ptrdiff_t)more) return 0;
        uint8_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
        uint8_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
        if (*at < low || *at > high) return 0;
        for (at++; --more; at++) {
            if (*at < 0x80 || *at > 0xBF) return 0;
        }
    }
    return 1;
}
