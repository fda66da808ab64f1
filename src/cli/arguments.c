/* Reading flags: --name value, --name=value, --switch. */
#include "cli/arguments.h"

#include <string.h>

#include "base/alloc.h"
#include "cli/output.h"

/* Changes up to this share of a name still look like a slip. */
static bool is_near(const char *name, int distance)
{
    return distance <= 2 || distance * 4 <= (int)strlen(name);
}

void dk_suggest(dk_string *out, const dk_command *command, const char *name, bool as_flag)
{
    const dk_parameter *best = NULL;
    int least = 64;
    for (const dk_flag_group *g = command->groups; g != NULL && g->table != NULL; g++) {
        for (int i = 0; i < g->table->count; i++) {
            const dk_parameter *parameter = &g->table->parameters[i];
            int distance = dk_name_distance(name, parameter->name);
            if (dk_flag_group_has(g, parameter) && distance < least) {
                best = parameter;
                least = distance;
            }
        }
    }
    if (best == NULL || !is_near(name, least)) {
        dk_string_printf(out, ", see darkroom %s --help", command->name);
    } else if (as_flag) {
        dk_string_puts(out, ", did you mean ");
        dk_parameter_flag(out, best);
        dk_string_putc(out, '?');
    } else {
        dk_string_printf(out, ", did you mean %s?", best->name);
    }
}

static dk_status fail_unknown(const dk_command *command, const char *flag, dk_error *err)
{
    dk_string hint = DK_STRING_EMPTY;
    dk_suggest(&hint, command, flag + strspn(flag, "-"), true);
    dk_status status =
        dk_fail(err, DK_INVALID, "unknown flag '%.100s'%s", flag, dk_string_text(&hint));
    dk_string_release(&hint);
    return status;
}

static void add(dk_arguments *a, dk_setting setting)
{
    size_t count = (size_t)a->count + 1;
    a->settings = dk_realloc(a->settings, count * sizeof *a->settings);
    a->settings[a->count++] = setting;
}

/* One flag at argv[*at]; moves *at behind it and its value. */
static dk_status parse_flag(dk_arguments *a, int argc, char **argv, int *at, dk_error *err)
{
    const char *flag = argv[(*at)++], *equals = strchr(flag, '=');
    char *name = equals != NULL ? dk_strndup(flag, (size_t)(equals - flag)) : dk_strdup(flag);
    dk_setting setting = {.where = name};
    if (flag[1] == '-') {
        setting.parameter = dk_command_parameter(a->command, name + 2, &setting.table);
    }
    if (setting.parameter == NULL) {
        dk_status status = fail_unknown(a->command, name, err);
        dk_free(name);
        return status;
    }
    bool more = *at < argc;
    if (equals != NULL) {
        setting.text = equals + 1;
    } else if (setting.parameter->type == DK_PARAMETER_BOOL) {
        bool told = more && (strcmp(argv[*at], "true") == 0 || strcmp(argv[*at], "false") == 0);
        setting.text = told ? argv[(*at)++] : "true";
    } else if (more) {
        setting.text = argv[(*at)++];
    } else {
        dk_string range = DK_STRING_EMPTY;
        dk_parameter_range(&range, setting.parameter);
        dk_status status =
            dk_fail(err, DK_INVALID, "%s needs a value: %s", name, dk_string_text(&range));
        dk_string_release(&range);
        dk_free(name);
        return status;
    }
    add(a, setting);
    return DK_OK;
}

static dk_status parse_line(dk_arguments *a, int argc, char **argv, dk_error *err)
{
    bool flags = true;
    for (int at = 0; at < argc;) {
        const char *word = argv[at];
        if (flags && strcmp(word, "--") == 0) {
            flags = false;
            at++;
        } else if (flags && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)) {
            a->help = true;
            return DK_OK;
        } else if (flags && word[0] == '-' && word[1] != '\0') {
            DK_TRY(parse_flag(a, argc, argv, &at, err));
        } else if (a->positional_count == a->command->positionals_max) {
            return dk_fail(err, DK_INVALID,
                           "unexpected argument '%.200s', usage: darkroom %s %s", word,
                           a->command->name, a->command->usage);
        } else {
            a->positionals[a->positional_count++] = word;
            at++;
        }
    }
    return DK_OK;
}

/* The flag that names a configuration file; `bench` has another one of that name. */
static bool is_config(const dk_setting *setting)
{
    return setting->table == &dk_output_parameters &&
           strcmp(setting->parameter->name, "config") == 0;
}

/* Puts the file's settings before those of the command line, which therefore win. */
static dk_status read_config(dk_arguments *a, const char *path, dk_error *err)
{
    bool texts = false;
    DK_TRY(dk_config_load(&a->config, &texts, path, err));
    dk_arguments file = {.command = a->command};
    dk_status status = DK_OK;
    const char *key;
    json_t *value;
    json_object_foreach(a->config, key, value)
    {
        dk_string where = DK_STRING_EMPTY;
        dk_setting setting = {.json = value};
        setting.parameter = dk_command_parameter(a->command, key, &setting.table);
        if (setting.parameter == NULL || is_config(&setting)) {
            dk_suggest(&where, a->command, key, false);
            status = dk_fail(err, DK_INVALID, "%s: unknown key '%.100s'%s", path, key,
                             dk_string_text(&where));
            dk_string_release(&where);
            break;
        }
        if (texts) {
            setting.text = json_string_value(value);
        }
        dk_string_printf(&where, "%s: %s", path, key);
        setting.where = dk_string_take(&where);
        add(&file, setting);
    }
    for (int i = 0; i < a->count; i++) {
        add(&file, a->settings[i]);
    }
    dk_free(a->settings);
    a->settings = file.settings;
    a->count = file.count;
    return status;
}

dk_status dk_arguments_parse(dk_arguments *out, const dk_command *command, int argc,
                             char **argv, dk_error *err)
{
    *out = (dk_arguments){.command = command};
    out->positionals =
        dk_alloc(((size_t)command->positionals_max + 1) * sizeof *out->positionals);
    DK_TRY(parse_line(out, argc, argv, err));
    if (out->help) {
        return DK_OK;
    }
    if (out->positional_count < command->positionals_min) {
        return dk_fail(err, DK_INVALID, "too few arguments, usage: darkroom %s %s",
                       command->name, command->usage);
    }
    const char *config = NULL;
    for (int i = 0; i < out->count; i++) {
        if (is_config(&out->settings[i])) {
            config = out->settings[i].text;
        }
    }
    return config != NULL ? read_config(out, config, err) : DK_OK;
}

void dk_arguments_release(dk_arguments *arguments)
{
    for (int i = 0; i < arguments->count; i++) {
        dk_free(arguments->settings[i].where);
    }
    dk_free(arguments->settings);
    dk_free(arguments->positionals);
    json_decref(arguments->config);
    *arguments = (dk_arguments){0};
}

dk_status dk_arguments_apply(const dk_arguments *arguments, const dk_parameter_table *table,
                             void *object, dk_error *err)
{
    for (int i = 0; i < arguments->count; i++) {
        const dk_setting *s = &arguments->settings[i];
        if (s->table != table) {
            continue;
        }
        if (s->text != NULL) {
            DK_TRY(dk_parameter_set_text(s->parameter, object, s->text, s->where, err));
        } else {
            DK_TRY(dk_parameter_set_json(s->parameter, object, s->json, s->where, err));
        }
    }
    return DK_OK;
}

bool dk_arguments_has(const dk_arguments *arguments, const char *name)
{
    for (int i = 0; i < arguments->count; i++) {
        if (strcmp(arguments->settings[i].parameter->name, name) == 0) {
            return true;
        }
    }
    return false;
}
