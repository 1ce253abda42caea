/* Arguments against schemas: each keyword, fitting and not, with what is said about it. */
#include "tests/unit/kernel/agent/common.h"

#include "kernel/agent/validate.h"

static const struct {
    const char *schema, *value, *why; /* why NULL: fits */
} rows[] = {
    { "{'type':'object','properties':{'p':{'type':'string'}},'required':['p']}", "{'p':'x'}",
      NULL },
    { "{'type':'object','properties':{'p':{'type':'string'}},'required':['p']}", "{}",
      "arguments: p is missing" },
    { "{'type':'object','properties':{'p':{'type':'string'}}}", "{'p':1}",
      "p: must be of type string" },
    { "{'type':'object','properties':{'p':{'type':'integer'}}}", "{'p':1.0}", NULL },
    { "{'type':'object','properties':{'p':{'type':'integer'}}}", "{'p':1.5}",
      "p: must be of type integer" },
    { "{'type':'object','properties':{'p':{'type':'number'}}}", "{'p':3}", NULL },
    { "{'type':'object','properties':{'p':{'type':'boolean'}}}", "{'p':'true'}",
      "p: must be of type boolean" },
    { "{'type':'object','properties':{'p':{'type':['string','null']}}}", "{'p':null}", NULL },
    { "{'type':'object','properties':{'p':{'type':['string','null']}}}", "{'p':[]}",
      "p: must be of one of the types" },
    { "{'properties':{'p':{}},'additionalProperties':false}", "{'q':1}",
      "arguments: q is not known" },
    { "{'properties':{'p':{}}}", "{'q':1}", NULL },
    { "{'additionalProperties':{'type':'string'}}", "{'q':1}", "q: must be of type string" },
    { "{'properties':{'p':{'enum':['a','b']}}}", "{'p':'b'}", NULL },
    { "{'properties':{'p':{'enum':['a','b']}}}", "{'p':'c'}", "p: must be one of [\"a\",\"b\"]" },
    { "{'properties':{'p':{'const':4}}}", "{'p':4}", NULL },
    { "{'properties':{'p':{'const':4}}}", "{'p':5}", "p: must be 4" },
    { "{'properties':{'p':{'minimum':1,'maximum':3}}}", "{'p':2}", NULL },
    { "{'properties':{'p':{'minimum':1,'maximum':3}}}", "{'p':0}", "p: must be at least 1" },
    { "{'properties':{'p':{'minimum':1,'maximum':3}}}", "{'p':3.5}", "p: must be at most 3" },
    { "{'properties':{'p':{'exclusiveMinimum':1}}}", "{'p':1}", "p: must be more than 1" },
    { "{'properties':{'p':{'exclusiveMaximum':1}}}", "{'p':1}", "p: must be less than 1" },
    { "{'properties':{'p':{'minLength':2,'maxLength':3}}}", "{'p':'äö'}", NULL },
    { "{'properties':{'p':{'minLength':2,'maxLength':3}}}", "{'p':'ä'}",
      "p: must have at least 2 characters" },
    { "{'properties':{'p':{'minLength':2,'maxLength':3}}}", "{'p':'abcd'}",
      "p: must have at most 3 characters" },
    { "{'properties':{'p':{'minItems':1}}}", "{'p':[]}", "p: must have at least 1 items" },
    { "{'properties':{'p':{'maxItems':1}}}", "{'p':[1,2]}", "p: must have at most 1 items" },
    { "{'properties':{'p':{'items':{'type':'object','required':['id']}}}}", "{'p':[{'id':1},{}]}",
      "p[1]: id is missing" },
    { "{'properties':{'a':{'properties':{'b':{'type':'string'}}}}}", "{'a':{'b':1}}",
      "a.b: must be of type string" },
    { "{'anyOf':[{'required':['a']},{'required':['b']}]}", "{'b':1}", NULL },
    { "{'anyOf':[{'required':['a']},{'required':['b']}]}", "{}", "arguments: b is missing" },
    { "{'oneOf':[{'required':['a']},{'required':['b']}]}", "{'a':1,'b':1}",
      "arguments: fits more than one of the forms" },
    { "{'oneOf':[{'required':['a']},{'required':['b']}]}", "{'a':1}", NULL },
    { "{'allOf':[{'required':['a']},{'required':['b']}]}", "{'a':1}", "arguments: b is missing" },
    { "{'type':'object'}", "[]", "arguments: must be of type object" },
    { "{'type':'thing','pattern':'('}", "{}", NULL }, /* left to the owner */
};

static void each_keyword(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ELEMS(rows); i++) {
        json_object *schema = js(rows[i].schema), *value = js(rows[i].value);
        char why[256] = "";
        bool ok = schema_fits(schema, value, why, sizeof why);
        if (ok != !rows[i].why || (rows[i].why && !str_starts(why, rows[i].why)))
            fail_msg("%s with %s: %d %s", rows[i].schema, rows[i].value, ok, why);
        json_put(schema);
        json_put(value);
    }
}

static void depth_has_an_end(void **state)
{
    json_object *schema = json_new(), *value = js("{}");
    char why[256];

    (void)state;
    for (int i = 0; i < 40; i++) {
        json_object *list = json_new_arr();
        json_push(list, schema);
        schema = json_make("allOf:o", list);
    }
    assert_false(schema_fits(schema, value, why, sizeof why));
    assert_string_equal(why, "arguments: nested too deeply");
    assert_true(schema_fits(NULL, value, why, sizeof why));
    json_put(schema);
    json_put(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(each_keyword),
                                        cmocka_unit_test(depth_has_an_end) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
