// Package docs_test holds tests only: they keep the pages of this directory true. What stands between "generated" marks is made
// from the programs as they are now; `make docs` rewrites it. The commands of the pages are run by tools/runtime.
package docs_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the generated parts of the pages")

func TestMain(m *testing.M) { os.Exit(testkit.Main(m, testkit.Programs)) }

// generators make the parts that are generated, by name.
var generators = map[string]func(t *testing.T) string{
	"keys":               keys,
	"agent-commands":     func(t *testing.T) string { return commands(t, "ip-masq-agent") },
	"installer-commands": func(t *testing.T) string { return commands(t, "ip-masq-installer") },
	"agent-metrics":      agentMetrics,
	"installer-metrics":  installerMetrics,
}

var (
	part  = regexp.MustCompile(`(?s)(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)`)
	begin = regexp.MustCompile(`<!-- generated: [a-z-]+ -->`)
)

// TestGenerated compares every generated part with what the programs say.
func TestGenerated(t *testing.T) {
	unused := map[string]bool{}
	for name := range generators {
		unused[name] = true
	}
	for _, file := range pages(t) {
		text := read(t, file)
		if len(begin.FindAllString(text, -1)) != len(part.FindAllString(text, -1)) {
			t.Errorf("%s: a generated part has no end", file)
		}
		now := part.ReplaceAllStringFunc(text, func(old string) string {
			m := part.FindStringSubmatch(old)
			generate, ok := generators[m[2]]
			if !ok {
				t.Errorf("%s: nothing generates %q", file, m[2])
				return old
			}
			delete(unused, m[2])
			return m[1] + "\n" + strings.TrimSpace(generate(t)) + "\n\n" + m[3]
		})
		switch {
		case now == text:
		case *rewrite:
			write(t, file, now)
		default:
			t.Errorf("%s is not what the programs say; `make docs` rewrites it:\n%s", file, firstDifference(text, now))
		}
	}
	for name := range unused {
		t.Errorf("no page has the generated part %q", name)
	}
}

func firstDifference(old, now string) string {
	a, b := strings.Split(old, "\n"), strings.Split(now, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d\n- %s\n+ %s", i+1, a[i], b[i])
		}
	}
	return "one is longer"
}

// keys is the table of the configuration file's keys.
func keys(*testing.T) string {
	var out strings.Builder
	out.WriteString("| key | takes | default | meaning |\n| --- | --- | --- | --- |\n")
	for _, k := range config.Keys() {
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", k.Name, k.Type, k.Default, strings.ReplaceAll(k.Summary, "|", `\|`))
	}
	return out.String()
}

// pages are all documents that a user reads, from the root of the repository on.
func pages(t *testing.T) []string {
	t.Helper()
	here, err := filepath.Glob("*.md")
	if err != nil || len(here) < 2 {
		t.Fatalf("%v, %v", here, err)
	}
	return append(here, "../README.md", "../CONTRIBUTING.md", "../SECURITY.md", "../CHANGELOG.md")
}

var (
	link    = regexp.MustCompile(`!?\[[^\]]*\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	fence   = regexp.MustCompile("(?s)\n```.*?\n```")
)

// TestLinks: what a page points to inside the repository is there, headings as well.
func TestLinks(t *testing.T) {
	for _, file := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(read(t, file), ""), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			to := file
			if target != "" {
				to = filepath.Join(filepath.Dir(file), target)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: %s: %v", file, m[1], err)
			} else if anchor != "" && !slices.Contains(anchors(read(t, to)), anchor) {
				t.Errorf("%s: %s has no heading #%s, but %v", file, to, anchor, anchors(read(t, to)))
			}
		}
	}
}

// anchors are the names that GitHub gives to a page's headings.
func anchors(page string) (out []string) {
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out = append(out, strings.ReplaceAll(name, " ", "-"))
	}
	return out
}

// TestIndex: docs/README.md names every page, and the README names the index.
func TestIndex(t *testing.T) {
	index := read(t, "README.md")
	for _, file := range pages(t) {
		if !strings.HasPrefix(file, "..") && file != "README.md" && !strings.Contains(index, "]("+file+")") {
			t.Errorf("README.md does not name %s", file)
		}
	}
	if !strings.Contains(read(t, "../README.md"), "](docs/README.md)") {
		t.Error("the README does not name docs/README.md")
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

var (
	mount      = regexp.MustCompile(`(?m)^ +mountPath: (\S+)`)
	capability = regexp.MustCompile(`(?m)^ +- ([A-Z]+_[A-Z_]+)\b`)
)

// TestSecurityPage: every mount and capability of the manifest has its reason on the page.
func TestSecurityPage(t *testing.T) {
	page, manifest := read(t, "security.md"), read(t, "../conf/ip-masq-agent.yaml")
	for _, needed := range []*regexp.Regexp{mount, capability} {
		found := needed.FindAllStringSubmatch(manifest, -1)
		if len(found) == 0 {
			t.Errorf("the manifest has nothing like %s", needed)
		}
		for _, m := range found {
			if !strings.Contains(page, "| `"+m[1]+"`") {
				t.Errorf("security.md has no row for %s, which the manifest has", m[1])
			}
		}
	}
}

var (
	alertName = regexp.MustCompile(`(?m)^ +- alert: (\S+)`)
	checkRow  = regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|")
)

// TestTroubleshootingHasEveryAlert: every alert and every question of check leads to a chapter.
func TestTroubleshootingHasEveryAlert(t *testing.T) {
	page := read(t, "troubleshooting.md")
	_, table, _ := strings.Cut(page, "| alert | question of `check` | chapter |")
	table, _, _ = strings.Cut(table, "\n\n")
	wanted := alertName.FindAllStringSubmatch(read(t, "../conf/monitoring/alerts.yaml"), -1)
	_, checks, _ := strings.Cut(read(t, "status.md"), "## check")
	checks, _, _ = strings.Cut(checks, "\n## ")
	wanted = append(wanted, checkRow.FindAllStringSubmatch(checks, -1)...)
	if len(wanted) < 25 {
		t.Errorf("only %d alerts and questions were found", len(wanted))
	}
	for _, m := range wanted {
		if !strings.Contains(table, "`"+m[1]+"`") {
			t.Errorf("troubleshooting.md has no chapter for %s", m[1])
		}
	}
}
