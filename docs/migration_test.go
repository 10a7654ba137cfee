package docs_test

import (
	"encoding/json"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

var (
	code       = regexp.MustCompile("`([^`]+)`")
	ourFlag    = regexp.MustCompile(`^(--[a-z0-9-]+)(=\S+)?$`)
	ourKey     = regexp.MustCompile(`^([a-z][A-Za-z0-9]*):( .+)?$`)
	ourValue   = regexp.MustCompile(`^((?:agent|installer|cni|metrics|uninstall)(?:\.[a-zA-Z]+)+)=(.+)$`)
	ourCommand = regexp.MustCompile(`^(ip-masq-agent|ip-masq-installer) ([a-z]+)`)
)

// TestMigration: whatever a row of docs/migration.md names as ours is taken by the programs. Flags are given to render, or where that has
// them not, looked for in the help of the daemon and the installer; keys of the file to lint; values to the chart's own; entries of the
// conflist are JSON with the plugin's keys.
func TestMigration(t *testing.T) {
	tried := map[string]int{}
	for number, line := range strings.Split(read(t, "migration.md"), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| ---") || cells[0] == "there" {
			continue
		}
		if columns := strings.Count(line, "|") - 1; columns != 3 {
			t.Errorf("migration.md:%d: %d columns, want three: there, change there, here", number+1, columns)
			continue
		}
		here := line[strings.LastIndex(strings.TrimSuffix(strings.TrimSpace(line), "|"), "|")+1:]
		if strings.Trim(here, "| ") == "" {
			t.Errorf("migration.md:%d: nothing says what to set here", number+1)
		}
		for _, m := range code.FindAllStringSubmatch(here, -1) {
			kind, problem := try(t, m[1])
			tried[kind]++
			if problem != "" {
				t.Errorf("migration.md:%d: %s: %s", number+1, m[1], problem)
			}
		}
	}
	for kind, least := range map[string]int{"flag": 20, "key": 20, "value": 3, "command": 2, "entry": 2} {
		if tried[kind] < least {
			t.Errorf("%d of kind %s on the page, want %d at least: this test no longer sees them", tried[kind], kind, least)
		}
	}
}

// try gives the programs what a page names. What is none of the kinds is only named, such as a file.
func try(t *testing.T, span string) (kind, problem string) {
	t.Helper()
	switch {
	case ourFlag.MatchString(span):
		return "flag", tryFlag(t, span)
	case ourKey.MatchString(span):
		return "key", tryKey(t, span)
	case ourValue.MatchString(span):
		m := ourValue.FindStringSubmatch(span)
		return "value", tryValue(t, m[1])
	case ourCommand.MatchString(span):
		m := ourCommand.FindStringSubmatch(span)
		if _, err := exec.Command(testkit.Program(m[1]), m[2], "--help").CombinedOutput(); err != nil {
			return "command", err.Error()
		}
		return "command", ""
	case strings.HasPrefix(span, `"`):
		return "entry", tryEntry(t, span)
	case strings.HasPrefix(span, "ip-masq-agent/"):
		if !strings.Contains(read(t, "plugin.md"), "`"+span+"`") {
			return "annotation", "docs/plugin.md does not have it"
		}
		return "annotation", ""
	}
	if !slices.Contains([]string{"/readyz", "fc00::/7"}, span) {
		return "name", "no flag, key, value, command, entry or annotation of ip-masq looks like this"
	}
	return "name", ""
}

func tryFlag(t *testing.T, span string) string {
	t.Helper()
	name := ourFlag.FindStringSubmatch(span)[1]
	if strings.Contains(help(t, "ip-masq-agent", "render"), name+" ") && name != "--config" {
		out, err := exec.Command(testkit.Program("ip-masq-agent"), "render", span, "--state-dir", t.TempDir(), "--data-dir", t.TempDir()).CombinedOutput()
		if err != nil {
			return string(out)
		}
		return ""
	}
	for _, of := range []string{help(t, "ip-masq-agent", "run"), help(t, "ip-masq-installer", "install")} {
		if regexp.MustCompile(`(^|\s)-?` + regexp.QuoteMeta(name) + `\b`).MatchString(of) {
			return ""
		}
	}
	return "no program has this flag"
}

// tryKey: a file with the line is in force without a complaint. A pod annotation looks the same, and is no key.
func tryKey(t *testing.T, line string) string {
	t.Helper()
	key := ourKey.FindStringSubmatch(line)[1]
	if !slices.ContainsFunc(config.Keys(), func(k config.Key) bool { return k.Name == key }) {
		return "the file has no such key"
	}
	lint := exec.Command(testkit.Program("ip-masq-agent"), "lint", "--enable-ipv6", "-")
	lint.Stdin = strings.NewReader(line + "\n")
	if out, err := lint.CombinedOutput(); err != nil {
		return string(out)
	}
	return ""
}

func tryValue(t *testing.T, path string) string {
	t.Helper()
	var values map[string]any
	if err := yaml.Unmarshal([]byte(read(t, "../conf/helm/ip-masq-agent/values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	for _, key := range strings.Split(path, ".") {
		value, ok := values[key]
		if !ok {
			return "the chart has no such value"
		}
		values, _ = value.(map[string]any)
	}
	return ""
}

// tryEntry: a key of the plugin's entry, which docs/plugin.md has, or the main plugin's ipMasq.
func tryEntry(t *testing.T, span string) string {
	t.Helper()
	var entry map[string]any
	if err := json.Unmarshal([]byte("{"+span+"}"), &entry); err != nil {
		return err.Error()
	}
	for key := range entry {
		if !strings.Contains(read(t, "plugin.md"), "| `"+key+"`") {
			return "docs/plugin.md has no key " + key
		}
	}
	return ""
}
