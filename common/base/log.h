#pragma once
/*
 * Logging: one line per event on stderr, JSON for units ({"ts","level","unit","msg",…}), text for
 * commands. Lines are written with one write(2). Never pass a secret. Libraries return errors,
 * rooms log.
 */
#include "common/base/util.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* unit: name in each line, borrowed for good. json: machine lines or text. */
void log_init(const char *unit, bool json, enum log_level level);
void log_set_level(enum log_level level);
enum log_level log_level(void);
/* "error" "warn" "info" "debug"; false if unknown. */
bool log_level_parse(const char *s, enum log_level *ret);
void log_line(enum log_level level, const char *fmt, ...) printf_like(2, 3);
/* Like log_line, with extra members: a JSON object text such as {"pid":157}, put in as "fields". */
void log_fields(enum log_level level, const char *fields_json, const char *fmt, ...)
    printf_like(3, 4);

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)                        \
    do {                                      \
        if (log_level() >= LOG_DEBUG)         \
            log_line(LOG_DEBUG, __VA_ARGS__); \
    } while (0)
/* Logs and ends the process with this status. */
_Noreturn void die(int status, const char *fmt, ...) printf_like(2, 3);
