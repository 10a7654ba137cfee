package docs_test

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/agent"
	"github.com/ip-masq/ip-masq-cni/pkg/install"
	"github.com/ip-masq/ip-masq-cni/pkg/probes"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

var subcommand = regexp.MustCompile(`(?m)^  ([a-z]+) +\S.*$`)

// commands is what a program's --help says, for itself and each command. Its lines are folded, for a page is read in a browser.
func commands(t *testing.T, program string) string {
	t.Helper()
	root := help(t, program)
	_, list, _ := strings.Cut(root, "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	var out strings.Builder
	fmt.Fprintf(&out, "## %s\n\n```text\n%s\n```\n", program, fold(root))
	for _, m := range subcommand.FindAllStringSubmatch(list, -1) {
		if m[1] == "help" || m[1] == "completion" { // cobra's
			continue
		}
		fmt.Fprintf(&out, "\n### %s %s\n\n```text\n%s\n```\n", program, m[1], fold(help(t, program, m[1])))
	}
	return out.String()
}

func help(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(testkit.Program(program), append(args, "--help")...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v --help: %v\n%s", program, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// fold breaks lines at 110 columns and continues them below their last column.
func fold(text string) string {
	var out []string
	for _, line := range strings.Split(text, "\n") {
		column := regexp.MustCompile(`^ *\S+( \S+)*  +`).FindString(line)
		for len(line) > 110 {
			at := strings.LastIndex(line[:110], " ")
			if at <= len(column) {
				break
			}
			out = append(out, strings.TrimRight(line[:at], " "))
			line = strings.Repeat(" ", len(column)) + line[at+1:]
		}
		out = append(out, strings.TrimRight(line, " "))
	}
	return strings.Join(out, "\n")
}

// agentMetrics and installerMetrics are what the programs describe; a scrape gives away nothing else.
func agentMetrics(*testing.T) string { return metrics(agent.MetricsPrefix, agent.Metrics()) }

func installerMetrics(*testing.T) string { return metrics(install.MetricsPrefix, install.Metrics()) }

func metrics(prefix string, families []probes.Family) string {
	rows := []string{"| name | type | labels | meaning |", "| --- | --- | --- | --- |"}
	for _, f := range families {
		var labels []string
		for _, label := range f.Labels {
			labels = append(labels, "`"+label+"`")
		}
		rows = append(rows, fmt.Sprintf("| `%s%s` | %s | %s | %s |", prefix, f.Name, f.Type, strings.Join(labels, ", "), strings.ReplaceAll(f.Help, "|", `\|`)))
	}
	return strings.Join(rows, "\n")
}
