/*
 * /proc/<pid>/environ shows the bytes above the stack that execve filled, whatever became of the
 * variables. setenv keeps a copy of its own, so once that is done the original can go.
 */
#include "common/base/envx.h"

#include <unistd.h>

#include "common/base/util.h"

void env_hide(void)
{
    for (size_t i = 0; environ && environ[i]; i++) {
        char *line = environ[i], *eq = strchr(line, '=');
        size_t len = strlen(line);

        if (!eq || eq == line)
            continue;
        cleanup(freep) char *name = xstrndup(line, (size_t)(eq - line));
        char *value = xstrdup(eq + 1);
        if (setenv(name, value, 1) == 0 && environ[i] != line)
            explicit_bzero(eq + 1, len - (size_t)(eq + 1 - line));
        explicit_bzero(value, strlen(value));
        free(value);
    }
}
