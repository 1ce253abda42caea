#pragma once
/*
 * Arguments against an input schema: the part of JSON Schema that tool descriptors use (type, enum,
 * const, properties, required, additionalProperties, items, minimum, maximum, exclusive bounds,
 * minLength, maxLength, minItems, maxItems, anyOf, oneOf, allOf). Other keywords are left to the
 * owner of the tool.
 */
#include "common/base/json.h"

/* True if value fits; else why (size bytes) says what is wrong and where. A NULL schema fits all.
 */
bool schema_fits(json_object *schema, json_object *value, char *why, size_t size);
