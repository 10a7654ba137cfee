package docs_test

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/paths"
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

// agentMetrics is what an agent serves, on the backend that needs no programs of the machine.
func agentMetrics(t *testing.T) string {
	t.Helper()
	rig := testkit.NewRig(t, testkit.Only(backend.NFTables)[0])
	daemon := rig.Start(t, netnstest.Cmd{Args: rig.Command("run")})
	defer daemon.Stop(syscall.SIGTERM, netnstest.Limit(5*time.Second))
	netnstest.Eventually(t, 10*time.Second, "the agent is ready", func() bool { status, _ := rig.Probe("/readyz"); return status == 200 })
	_, text := rig.Probe("/metrics")
	return metrics(text)
}

// installerMetrics is what a watching installer serves, also while it finds no network.
func installerMetrics(t *testing.T) string {
	t.Helper()
	rig := testkit.NewRig(t, testkit.Only(backend.NFTables)[0])
	daemon := rig.Start(t, netnstest.Cmd{Args: []string{
		testkit.Program("ip-masq-installer"), "watch", "--cni-conf-dir", rig.ConfDir, "--cni-bin-dir", t.TempDir(),
		"--state-dir", rig.StateDir, "--data-dir", rig.DataDir, "--metrics-bind-address", paths.AgentAddress,
	}})
	defer daemon.Stop(syscall.SIGTERM, netnstest.Limit(5*time.Second))
	netnstest.Eventually(t, 10*time.Second, "the installer answers", func() bool { status, _ := rig.Probe("/livez"); return status == 200 })
	_, text := rig.Probe("/metrics")
	return metrics(text)
}

var (
	described = regexp.MustCompile(`^# (HELP|TYPE) (\S+) (.*)$`)
	sample    = regexp.MustCompile(`^(ip_masq_\w+?)(_bucket|_sum|_count)?(?:\{(.*)\})? `)
	label     = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)
)

// metrics is a table of what a scrape describes.
func metrics(scrape string) string {
	type family struct{ kind, help, labels string }
	families := map[string]*family{}
	of := func(name string) *family {
		if families[name] == nil {
			families[name] = &family{}
		}
		return families[name]
	}
	for _, line := range strings.Split(scrape, "\n") {
		if m := described.FindStringSubmatch(line); m != nil && m[1] == "HELP" {
			of(m[2]).help = m[3]
		} else if m != nil {
			of(m[2]).kind = m[3]
		} else if m := sample.FindStringSubmatch(line); m != nil {
			name := m[1]
			if families[name] == nil {
				name += m[2]
			}
			var labels []string
			for _, l := range label.FindAllStringSubmatch(m[3], -1) {
				if l[1] != "le" {
					labels = append(labels, "`"+l[1]+"`")
				}
			}
			of(name).labels = strings.Join(labels, ", ")
		}
	}
	var rows []string
	for name, f := range families {
		if strings.HasPrefix(name, "ip_masq_") {
			rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |", name, f.kind, f.labels, strings.ReplaceAll(f.help, "|", `\|`)))
		}
	}
	slices.Sort(rows)
	return "| name | type | labels | meaning |\n| --- | --- | --- | --- |\n" + strings.Join(rows, "\n")
}
