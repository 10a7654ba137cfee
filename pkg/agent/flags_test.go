package agent_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// apart runs a command with nothing of this machine's within reach: these invocations should not get as far as the kernel, and
// what does must not find one that is in use. Without root it could not do harm anyway.
const apart = `mount -t tmpfs none /run && mount -t tmpfs none /var/lib && exec "$0" "$@"`

// invoke runs the agent in an empty network namespace of its own, and not for long.
func invoke(t *testing.T, args ...string) netnstest.Result {
	t.Helper()
	return invokeOn(t, "", args...)
}

// invokeOn is invoke with a standard input.
func invokeOn(t *testing.T, stdin string, args ...string) netnstest.Result {
	t.Helper()
	line := append([]string{testkit.Program("ip-masq-agent")}, args...)
	if os.Geteuid() == 0 {
		line = append([]string{"unshare", "--net", "--mount", "sh", "-c", apart}, line...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &stdout, &stderr, time.Second
	if err := cmd.Run(); cmd.ProcessState == nil || ctx.Err() != nil {
		t.Fatalf("%v: %v, %v\n%s", args, err, ctx.Err(), stderr.String())
	}
	return netnstest.Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
}

// misuses are command lines that end with status 2 and one line on stderr.
var misuses = []struct{ line, says string }{
	{"--no-such-flag", "no-such-flag"},
	{"run --no-such-flag=1", "no-such-flag"},
	{"syn", `unknown command "syn": did you mean sync? (see ip-masq-agent --help)`},
	{"mend", `unknown command "mend": want one of check, cleanup, explain, lint, render, run, status, sync`},
	{"sync --confg=/etc/a", "unknown flag --confg: did you mean --config? (see ip-masq-agent sync --help)"},
	{"'' ", "unknown command"},
	{"--masq-chain=ABCDEFGHIJKLMNOPQRSTUVWX", "\"--masq-chain\" flag: chain name \"ABCDEFGHIJKLMNOPQRSTUVWX\" has 24 characters: want at most 23"},
	{"render --masq-chain=", "--masq-chain"},
	{"render --masq-chain=-A", "--masq-chain"},
	{"render --masq-chain=A;B", "--masq-chain"},
	{"--to-ports=0-70000", "--to-ports"},
	{"sync --to-ports=42-41", "\"--to-ports\" flag: port range \"42-41\": want FIRST-LAST or one port, between 1 and 65535"},
	{"render --to-ports=1,,2", "--to-ports"},
	{"--backend=ipfw", `"--backend" flag: backend "ipfw": want one of`},
	{"sync --sources=some", `"--sources" flag: sources "some": want "pods" or "all"`},
	{"sync --sources=", "--sources"},
	{"--metrics-bind-address=localhost", `"localhost" for "--metrics-bind-address" flag: want HOST:PORT, such as 127.0.0.1:10278`},
	{"--metrics-bind-address=127.0.0.1:http2", "--metrics-bind-address"},
	{"--metrics-bind-address=127.0.0.1:70000", "--metrics-bind-address"},
	{"--enable-ipv6=maybe", "enable-ipv6"},
	{"--v=loud", "-v"},
	{"run extra", `run takes no arguments, not ["extra"]`},
	{"--enable-ipv6 false", `a switch takes its value after "="`},
	{"run --log-format=xml", `"xml" for "--log-format" flag: want text or json`},
	{"sync extra", "sync takes no arguments"},
	{"render extra", "render takes no arguments"},
	{"lint", "lint takes one FILE"},
	{"lint a b", "lint takes one FILE"},
	{"lint --output=xml a", `"xml" for "--output" flag: want text, json or yaml`},
	{"lint --masq-chain=A a", "masq-chain"},
	{"render --metrics-bind-address=127.0.0.1:1", "metrics-bind-address"},
	{"--config=", "--config"},
	{"sync --state-dir=", "--state-dir"},
	{"sync --data-dir=", "--data-dir"},
}

func TestMisuse(t *testing.T) {
	for _, c := range misuses {
		t.Run(c.line, func(t *testing.T) {
			args := strings.Fields(strings.ReplaceAll(c.line, "''", ""))
			if strings.HasPrefix(c.line, "''") {
				args = []string{""}
			}
			got := invoke(t, args...)
			if got.Code != 2 || got.Stdout != "" || strings.Count(got.Stderr, "\n") != 1 || !strings.Contains(got.Stderr, c.says) {
				t.Errorf("exit %d, want 2 and one line with %q\nstdout %q\nstderr %q", got.Code, c.says, got.Stdout, got.Stderr)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	for _, line := range []string{"--version", "-version", "run --version", "sync --version", "lint --version", "--v=2 --version"} {
		got := invoke(t, strings.Fields(line)...)
		if got.Code != 0 || !regexp.MustCompile(`^ip-masq-agent \S+\n$`).MatchString(got.Stdout) || got.Stderr != "" {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

// promised are the flags that the documentation of each command speaks of.
var promised = map[string]string{
	"run": "backend config data-dir enable-ipv6 masq-chain metrics-bind-address nomasq-all-reserved-ranges random-fully " +
		"sources state-dir strict-config to-ports v",
	"sync":   "backend config data-dir enable-ipv6 masq-chain nomasq-all-reserved-ranges random-fully sources state-dir strict-config to-ports v",
	"render": "backend config data-dir enable-ipv6 masq-chain nomasq-all-reserved-ranges output random-fully sources state-dir strict-config to-ports",
	"lint":   "enable-ipv6 nomasq-all-reserved-ranges output strict-config",
}

func TestHelp(t *testing.T) {
	listed := regexp.MustCompile(`(?m)^  +(?:-h, )?--([a-z0-9-]+)`)
	for command, flags := range promised {
		got := invoke(t, command, "--help")
		names := map[string]bool{}
		for _, match := range listed.FindAllStringSubmatch(got.Stdout, -1) {
			names[match[1]] = true
		}
		for _, name := range strings.Fields(flags) {
			if !names[name] {
				t.Errorf("%s --help has no --%s", command, name)
			}
		}
		if got.Code != 0 || got.Stderr != "" || strings.Contains(got.Stdout, "ignored") {
			t.Errorf("%s --help: %+v", command, got)
		}
	}
	if got := invoke(t, "lint", "--help"); strings.Contains(got.Stdout, "--config") {
		t.Errorf("lint takes its file as an argument, not by --config:\n%s", got.Stdout)
	}
}

// TestUsage wants help to list what is built and nothing else: every command in it answers, and so does every backend.
func TestUsage(t *testing.T) {
	usage := invoke(t, "--help")
	for _, line := range []string{"-h", "help", "--help"} {
		if got := invoke(t, line); got.Code != 0 || !strings.Contains(got.Stdout, "Usage:\n  ip-masq-agent [flags]\n  ip-masq-agent [command]\n") {
			t.Errorf("%s: %+v", line, got)
		}
	}
	_, list, _ := strings.Cut(usage.Stdout, "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	commands := regexp.MustCompile(`(?m)^  ([a-z]+) `).FindAllStringSubmatch(list, -1)
	if len(commands) < 4 {
		t.Errorf("want four commands at least:\n%s", usage.Stdout)
	}
	for _, match := range commands {
		if got := invoke(t, match[1], "--help"); got.Code != 0 || got.Stdout == "" {
			t.Errorf("%s: %+v", match[1], got)
		}
	}
	backends := regexp.MustCompile(`one of \[(.*)\]`).FindStringSubmatch(usage.Stdout)
	for _, backend := range strings.Fields(backends[1]) {
		if got := invoke(t, "render", "--backend", backend); got.Code != 0 || got.Stdout == "" {
			t.Errorf("--backend %s: %+v", backend, got)
		}
	}
}

// TestCompletion: what the shells offer for a flag is what the flag takes.
func TestCompletion(t *testing.T) {
	for _, name := range []string{"backend", "sources", "conntrack-flush", "log-format"} {
		offered, _, _ := strings.Cut(invoke(t, "__complete", "sync", "--"+name, "").Stdout, ":")
		for word := range strings.FieldsSeq(offered) {
			if got := invoke(t, "sync", "--"+name+"="+word, "--no-such-flag"); !strings.Contains(got.Stderr, "unknown flag --no-such-flag") {
				t.Errorf("--%s=%s: %s", name, word, got.Stderr)
			}
		}
		if len(strings.Fields(offered)) < 2 {
			t.Errorf("--%s: offered %q", name, offered)
		}
	}
	if got := invoke(t, "__complete", "st"); !strings.Contains(got.Stdout, "status\t") {
		t.Errorf("commands: %q", got.Stdout)
	}
}

// TestKlogFlags takes the logging flags that manifests of the Kubernetes agent carry.
func TestKlogFlags(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.Sync(t, "-v=2", "--logtostderr=true", "--alsologtostderr", "--stderrthreshold=INFO", "--vmodule=a=1", "--log_dir=/tmp",
			"--log_file=/dev/stdout", "--log_file_max_size=0", "--skip_headers", "--skip_log_headers", "--one_output", "--add_dir_header",
			"--log_backtrace_at=a:1")
		r.startReady(t, "--v", "4", "-logtostderr")
	})
}

func TestLint(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		overwrite(t, path, text)
		return path
	}
	good, typo := file("good", "nonMasqueradeCIDRs: [10.0.0.0/8]\n"), file("typo", "\nnonMasqueradeCIDR: []\nmasqLinkLocal: 1\n")
	ipv6 := file("ipv6", "nonMasqueradeCIDRs: ['fd00::/8']\n")
	const finding = `:2:1: error: unknown key "nonMasqueradeCIDR": did you mean nonMasqueradeCIDRs?`
	for _, c := range []struct {
		line []string
		code int
		says []string // the start of each line on stdout
	}{
		{[]string{good}, 0, []string{good + ": ok: keep 169.254.0.0/16, 10.0.0.0/8; masquerade every other destination; resync every 1m0s"}},
		{[]string{typo}, 1, []string{typo + finding, typo + ":3:16: error: masqLinkLocal is the number 1"}},
		{[]string{ipv6}, 1, []string{ipv6 + ":1:22: error: nonMasqueradeCIDRs[0]: CIDR \"fd00::/8\" is IPv6, which is off"}},
		{[]string{"--enable-ipv6", ipv6}, 0, []string{ipv6 + ": ok: keep 169.254.0.0/16, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fe80::/10, fd00::/8; masquerade every"}},
		{[]string{ipv6, "--enable-ipv6"}, 0, []string{ipv6 + ": ok: "}},
		{[]string{good, "--pod-cidr=10.1.0.0/16", "--service-cidr", "172.30.0.0/16"}, 0, []string{good + ":1:22: warning: 172.30.0.0/16, the service range of --service-cidr, would be masqueraded", good + ": ok: "}},
		{[]string{typo, "--strict-config=false"}, 1, []string{typo + ":2:1: warning: ", typo + ":3:16: error: "}},
		{[]string{file("warned", "nonMasqueradeCIDR: []\n"), "--strict-config=false"}, 0, []string{filepath.Join(dir, "warned") + ":1:1: warning: ", filepath.Join(dir, "warned") + ": ok: "}},
		{[]string{file("settings", "sources: all\ntoPorts: auto\nrandomFully: false\n")}, 0, []string{
			filepath.Join(dir, "settings") + ": ok: keep 169.254.0.0/16, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16; masquerade every other destination; " +
				"of all sources; source ports clear of the node's others; source ports in order; resync every 1m0s",
		}},
		{[]string{file("overruled", "sources: all\n"), "--sources=pods"}, 0, []string{
			filepath.Join(dir, "overruled") + ":1:1: warning: sources has no effect: the flag --sources is given, and wins",
			filepath.Join(dir, "overruled") + ": ok: keep 169.254.0.0/16, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16; masquerade every other destination; resync every 1m0s",
		}},
		{[]string{filepath.Join(dir, "absent")}, 1, []string{filepath.Join(dir, "absent") + ": error: "}},
	} {
		got := invoke(t, append([]string{"lint"}, c.line...)...)
		lines := strings.Split(strings.TrimSuffix(got.Stdout, "\n"), "\n")
		if got.Stdout == "" {
			lines = nil
		}
		ok := got.Code == c.code && got.Stderr == "" && len(lines) == len(c.says)
		for i := range min(len(lines), len(c.says)) {
			ok = ok && strings.HasPrefix(lines[i], c.says[i])
		}
		if !ok {
			t.Errorf("lint %v: exit %d, want %d and %q\nstdout %q\nstderr %q", c.line, got.Code, c.code, c.says, got.Stdout, got.Stderr)
		}
	}
	checkLintJSON(t, good, typo)
	if got := invokeOn(t, "masqLinkLocal: 1\n", "lint", "-"); got.Code != 1 || !strings.HasPrefix(got.Stdout, "-:1:16: error: masqLinkLocal is the number 1") {
		t.Errorf("stdin: %+v", got)
	}
}

func checkLintJSON(t *testing.T, good, typo string) {
	t.Helper()
	type finding struct {
		File, Severity, Message string
		Line, Column            int
	}
	for path, want := range map[string][]finding{
		good: {},
		typo: {
			{typo, "error", `unknown key "nonMasqueradeCIDR": did you mean nonMasqueradeCIDRs?`, 2, 1},
			{typo, "error", "masqLinkLocal is the number 1: write true or false, without quotes", 3, 16},
		},
	} {
		var got struct {
			APIVersion string
			Findings   []finding
			Policy     *policy.Policy
		}
		result := invoke(t, "lint", path, "--output", "json")
		if err := json.Unmarshal([]byte(result.Stdout), &got); err != nil {
			t.Errorf("%s: %v\n%s", path, err, result.Stdout)
		}
		if diff := cmp.Diff(want, got.Findings); diff != "" || (result.Code == 0) != (len(want) == 0) {
			t.Errorf("%s: exit %d (-want +got):\n%s", path, result.Code, diff)
		}
		if (got.Policy == nil) != (len(want) > 0) || got.APIVersion != "ip-masq/v1" {
			t.Errorf("%s: a policy of the version %q: %+v", path, got.APIVersion, got.Policy)
		}
	}
}
