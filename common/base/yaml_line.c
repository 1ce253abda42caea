/* Apart from the reader, so that a program which only asks for lines does not need libyaml. */
#include "common/base/yaml.h"

int yaml_line(json_object *o)
{
    uintptr_t u = o ? (uintptr_t)json_object_get_userdata(o) : 0;

    return u & 1 ? (int)(u >> 1) : 0;
}
