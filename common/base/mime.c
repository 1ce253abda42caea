/* By the end of the name; a name that says nothing is text if its first bytes are. */
#include "common/base/mime.h"

#include <strings.h>

const char *mime_of(const char *name, const char *head, size_t n)
{
    static const struct {
        const char *ext, *mime;
    } types[] = {
        { "txt", "text/plain" },
        { "md", "text/markdown" },
        { "html", "text/html" },
        { "htm", "text/html" },
        { "css", "text/css" },
        { "csv", "text/csv" },
        { "js", "text/javascript" },
        { "json", "application/json" },
        { "jsonl", "application/jsonl" },
        { "yaml", "application/yaml" },
        { "yml", "application/yaml" },
        { "xml", "application/xml" },
        { "pdf", "application/pdf" },
        { "zip", "application/zip" },
        { "gz", "application/gzip" },
        { "xz", "application/x-xz" },
        { "tar", "application/x-tar" },
        { "png", "image/png" },
        { "jpg", "image/jpeg" },
        { "jpeg", "image/jpeg" },
        { "gif", "image/gif" },
        { "webp", "image/webp" },
        { "svg", "image/svg+xml" },
        { "wav", "audio/wav" },
        { "mp3", "audio/mpeg" },
        { "mp4", "video/mp4" },
        { "c", "text/x-c" },
        { "h", "text/x-c" },
        { "py", "text/x-python" },
        { "sh", "application/x-sh" },
    };
    const char *dot = strrchr(name, '.');

    for (size_t i = 0; dot && i < N_ELEMS(types); i++)
        if (!strcasecmp(dot + 1, types[i].ext))
            return types[i].mime;
    return !memchr(head, '\0', n) && utf8_valid(head, utf8_floor(head, n))
               ? "text/plain"
               : "application/octet-stream";
}
