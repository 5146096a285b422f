/* Lines that contain a text: a task program in C, without a standard library.
 *
 *   parameters  {"text": "needle"}
 *   input       parts of text
 *   output      their lines that contain the text, in order
 *
 * Build: clang, or zig (python3 -m pip install ziglang; python3 -m ziglang cc ...), with
 *   --target=wasm32-freestanding -O2 -nostdlib -Wl,--no-entry -Wl,--export-memory -o grep.wasm grep.c
 */
#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(name)))
#define PAGE 65536u
#define FAILED (1ull << 63)
#define MISSING UINT64_MAX

extern unsigned char __heap_base;

/* Room is only taken, never given back: an instance does one task. */
static uintptr_t next;

static unsigned char *take(size_t length) {
    if (next == 0) next = (uintptr_t)&__heap_base;
    uintptr_t at = next, end = at + ((length + 15u) & ~(size_t)15u);
    size_t have = __builtin_wasm_memory_size(0) * (size_t)PAGE;
    if (end < at) return NULL;
    if (end > have && __builtin_wasm_memory_grow(0, (end - have + PAGE - 1) / PAGE) == (size_t)-1) return NULL;
    next = end;
    return (unsigned char *)at;
}

EXPORT("omnimesh_alloc") unsigned char *omnimesh_alloc(uint32_t length) {
    unsigned char *room = take(length);
    if (room == NULL) __builtin_trap();
    return room;
}

static uint64_t answer(uint64_t flag, const void *bytes, size_t length) {
    return flag | (uint64_t)(uintptr_t)bytes << 32 | length;
}

static uint64_t fail(const char *message) {
    size_t length = 0;
    while (message[length]) length++;
    return answer(FAILED, message, length);
}

static int is_at(const unsigned char *at, const unsigned char *text, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (at[i] != text[i]) return 0;
    return 1;
}

static int contains(const unsigned char *line, size_t length, const unsigned char *text, size_t text_length) {
    for (size_t i = 0; i + text_length <= length; i++)
        if (is_at(line + i, text, text_length)) return 1;
    return 0;
}

/* The value of the key "text": a JSON string without escapes. */
static const unsigned char *text_of(const unsigned char *params, size_t length, size_t *text_length) {
    static const unsigned char key[] = "\"text\":\"";
    const size_t key_length = sizeof key - 1;
    for (size_t i = 0; i + key_length <= length; i++) {
        if (!is_at(params + i, key, key_length)) continue;
        const unsigned char *text = params + i + key_length;
        size_t left = length - i - key_length;
        for (size_t end = 0; end < left; end++) {
            if (text[end] == '\\') return NULL;
            if (text[end] == '"') {
                *text_length = end;
                return text;
            }
        }
    }
    return NULL;
}

static uint64_t little_endian(const unsigned char *bytes, int count) {
    uint64_t value = 0;
    for (int i = count; i-- > 0;) value = value << 8 | bytes[i];
    return value;
}

/* Copies the lines that fit to the end of the output; gives the new end. */
static unsigned char *filter(const unsigned char *part, size_t length, const unsigned char *text, size_t text_length,
                             unsigned char *out) {
    for (size_t begin = 0; begin < length;) {
        size_t end = begin;
        while (end < length && part[end] != '\n') end++;
        if (end < length) end++;
        if (contains(part + begin, end - begin, text, text_length))
            for (size_t i = begin; i < end; i++) *out++ = part[i];
        begin = end;
    }
    return out;
}

EXPORT("omnimesh_run") uint64_t omnimesh_run(const unsigned char *params, uint32_t params_length,
                                             const unsigned char *input, uint32_t input_length) {
    size_t text_length = 0;
    const unsigned char *text = text_of(params, params_length, &text_length);
    if (text == NULL) return fail("the parameter text is missing, or has a backslash in it");
    if (input_length < 4) return fail("the input is too short");
    unsigned char *output = take(input_length), *end = output;
    if (output == NULL) return fail("no memory for the output");
    uint64_t parts = little_endian(input, 4), at = 4;
    for (uint64_t part = 0; part < parts; part++) {
        if (input_length - at < 8) return fail("the input is too short");
        uint64_t length = little_endian(input + at, 8);
        at += 8;
        if (length == MISSING) continue;
        if (length > input_length - at) return fail("the input is too short");
        end = filter(input + at, (size_t)length, text, text_length, end);
        at += length;
    }
    return answer(0, output, (size_t)(end - output));
}
