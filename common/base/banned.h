#pragma once
/*
 * Calls that have no safe use here become compile errors; the build forces this header into every
 * file. Use snprintf, buf_printf, strtol-based parsers, posix_spawn and their kin instead.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* clang's fortified stdio.h makes macros of these */
#undef sprintf
#undef vsprintf

#pragma GCC poison strcpy strcat sprintf vsprintf strncpy strncat gets strtok
#pragma GCC poison atoi atol atoll atof system popen tmpnam tempnam mktemp
#pragma GCC poison gmtime localtime ctime asctime
