package cli_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/ip-masq/ip-masq-cni/pkg/cli"
)

type coded struct{}

func (coded) Error() string { return "not possible now" }
func (coded) ExitCode() int { return 3 }

// program has what the real ones have: a root that runs, a command with an argument, switches and values.
func program(ran *string) *cobra.Command {
	root := &cobra.Command{Use: "prog", Short: "keep things equal"}
	var logging cli.Logging
	var config, address, format, chain string
	var ipv6 bool
	flags := func(c *cobra.Command) *cobra.Command {
		cli.Text(c.Flags(), &config, "config", "/etc/config", "configuration `file`")
		cli.Address(c.Flags(), &address, "metrics-bind-address", "127.0.0.1:1", "`address`")
		cli.OneOf(c.Flags(), &format, "output", "`format`", "text", "json")
		c.Flags().StringVar(&chain, "masq-chain", "CHAIN", "`name`")
		c.Flags().BoolVar(&ipv6, "enable-ipv6", false, "IPv6 too")
		logging.Register(c.Flags())
		return c
	}
	say := func(c *cobra.Command, args []string) error {
		*ran = fmt.Sprint(c.Name(), args, " config=", config, " chain=", chain, " ipv6=", ipv6, " v=", logging.Verbosity, " output=", format)
		return nil
	}
	root.RunE = say
	root.AddCommand(
		flags(&cobra.Command{Use: "sync", Short: "once", Args: cli.NoArgs, RunE: say}),
		flags(&cobra.Command{Use: "lint FILE", Short: "check", Args: cli.OneArg("FILE"), RunE: say}),
		&cobra.Command{Use: "run", RunE: say},
		&cobra.Command{Use: "fail", RunE: func(*cobra.Command, []string) error { return errors.New("broken") }},
		&cobra.Command{Use: "later", RunE: func(*cobra.Command, []string) error { return fmt.Errorf("file: %w", coded{}) }},
		&cobra.Command{Use: "quiet", RunE: func(*cobra.Command, []string) error { return cli.Exit(1) }},
		&cobra.Command{Use: "wrong", RunE: func(*cobra.Command, []string) error { return cli.Usage(errors.New("--a and --b")) }},
	)
	flags(root)
	return root
}

// TestExecute reads as a transcript: a command line, and what comes of it.
func TestExecute(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line   string
		status int
		ran    string // what the command got
		stderr string
	}{
		{"", 0, "prog[] config=/etc/config chain=CHAIN ipv6=false v=0 output=text", ""},
		{"sync", 0, "sync[] config=/etc/config chain=CHAIN ipv6=false v=0 output=text", ""},
		{"--config a sync --v=2", 0, "sync[] config=a chain=CHAIN ipv6=false v=2 output=text", ""},
		{"sync -config=a -enable-ipv6 -v 4 -logtostderr=true -stderrthreshold INFO", 0, "sync[] config=a chain=CHAIN ipv6=true v=4 output=text", ""},
		{"sync --masq-chain -v", 0, "sync[] config=/etc/config chain=-v ipv6=false v=0 output=text", ""},
		{"lint a --output json", 0, "lint[a] config=/etc/config chain=CHAIN ipv6=false v=0 output=json", ""},
		{"lint -- -a", 0, "lint[-a] config=/etc/config chain=CHAIN ipv6=false v=0 output=text", ""},
		{"lint -", 0, "lint[-] config=/etc/config chain=CHAIN ipv6=false v=0 output=text", ""},
		{"fail", 1, "", "prog: broken\n"},
		{"later", 3, "", "prog: file: not possible now\n"},
		{"quiet", 1, "", ""},
		{"wrong", 2, "", "prog: --a and --b (see prog wrong --help)\n"},
		{"syn", 2, "", "prog: unknown command \"syn\": did you mean sync? (see prog --help)\n"},
		{"other", 2, "", "prog: unknown command \"other\": want one of fail, later, lint, quiet, run, sync, wrong (see prog --help)\n"},
		{"sync --confg=a", 2, "", "prog: unknown flag --confg: did you mean --config? (see prog sync --help)\n"},
		{"sync -confg=a", 2, "", "prog: unknown flag --confg: did you mean --config? (see prog sync --help)\n"},
		{"sync --something-else", 2, "", "prog: unknown flag --something-else (see prog sync --help)\n"},
		{"sync --config=", 2, "", "prog: invalid argument \"\" for \"--config\" flag: give it a value, or leave the flag out for /etc/config (see prog sync --help)\n"},
		{"sync --config", 2, "", "prog: flag needs an argument: --config (see prog sync --help)\n"},
		{"sync --output=xml", 2, "", "prog: invalid argument \"xml\" for \"--output\" flag: want text or json (see prog sync --help)\n"},
		{"sync --metrics-bind-address=localhost", 2, "", "prog: invalid argument \"localhost\" for \"--metrics-bind-address\" flag: want HOST:PORT, such as 127.0.0.1:1 (see prog sync --help)\n"},
		{"lint", 2, "", "prog: lint takes one FILE, not [] (see prog lint --help)\n"},
		{"sync extra", 2, "", "prog: sync takes no arguments, not [\"extra\"] (see prog sync --help)\n"},
		{"--enable-ipv6 false", 2, "", "prog: stray \"false\": a switch takes its value after \"=\", as in --switch=false (see prog --help)\n"},
		{"sync --enable-ipv6 true", 2, "", "prog: stray \"true\": a switch takes its value after \"=\", as in --switch=true (see prog sync --help)\n"},
	} {
		t.Run(c.line, func(t *testing.T) {
			t.Parallel()
			var ran string
			var stdout, stderr strings.Builder
			status := cli.Execute(program(&ran), strings.Fields(c.line), &stdout, &stderr)
			if status != c.status || ran != c.ran || stderr.String() != c.stderr || stdout.Len() != 0 {
				t.Errorf("status %d, want %d\nran    %s\nwant   %s\nstderr %swant   %sstdout %s", status, c.status, ran, c.ran, stderr.String(), c.stderr, stdout.String())
			}
		})
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"--version", "-version", "sync --version", "lint --version", "--v=2 --version"} {
		var ran string
		var stdout, stderr strings.Builder
		if status := cli.Execute(program(&ran), strings.Fields(line), &stdout, &stderr); status != 0 || ran != "" ||
			!strings.HasPrefix(stdout.String(), "prog ") || stderr.Len() != 0 {
			t.Errorf("%s: status %d, ran %q, %q, %q", line, status, ran, stdout.String(), stderr.String())
		}
	}
	var ran string
	var stdout, stderr strings.Builder
	if cli.Execute(program(&ran), []string{"sync", "--masq-chain", "--version"}, &stdout, &stderr); !strings.Contains(ran, "chain=--version") {
		t.Errorf("the value of a flag was taken for one: %q, %q", ran, stdout.String())
	}
}

// TestHelpAndCompletion: help is on stdout and hides what does nothing; the shells are told commands and flags.
func TestHelpAndCompletion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line     string
		has, not string
	}{
		{"--help", "sync", "logtostderr"},
		{"-h", "Available Commands", "logtostderr"},
		{"help sync", "--config file", "log_dir"},
		{"sync -help", "--config file", "log_dir"},
		{"__complete sy", "sync\tonce", "lint"},
		{"__complete sync --conf", "--config", "--output"},
		{"completion bash", "__start_prog", "Usage"},
	} {
		var ran string
		var stdout, stderr strings.Builder
		status := cli.Execute(program(&ran), strings.Fields(c.line), &stdout, &stderr)
		if status != 0 || !strings.Contains(stdout.String(), c.has) || strings.Contains(stdout.String(), c.not) || ran != "" {
			t.Errorf("%s: status %d, want %q and not %q in\n%s%s", c.line, status, c.has, c.not, stdout.String(), stderr.String())
		}
	}
}

// TestLogger: each level shows one more line, and failures are shown on all of them.
func TestLogger(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		logging cli.Logging
		want    string
	}{
		{cli.Logging{}, "level=ERROR msg=failed\nlevel=INFO msg=changed\n"},
		{cli.Logging{Verbosity: 3, Format: "text"}, "level=ERROR msg=failed\nlevel=INFO msg=changed\nlevel=DEBUG msg=why\n"},
		{cli.Logging{Verbosity: 6}, "level=ERROR msg=failed\nlevel=INFO msg=changed\nlevel=DEBUG msg=why\nlevel=DEBUG msg=event\n"},
		{cli.Logging{Format: "json"}, `{"level":"ERROR","msg":"failed"}` + "\n" + `{"level":"INFO","msg":"changed"}` + "\n"},
	} {
		var out strings.Builder
		log := c.logging.Logger(&out)
		log.Error("failed")
		log.Info("changed")
		log.Log(t.Context(), cli.V(2), "why")
		log.Log(t.Context(), cli.V(6), "event")
		if diff := cmp.Diff(c.want, timeless(out.String())); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", c.logging, diff)
		}
	}
	if cli.V(4) != slog.LevelDebug {
		t.Error("-v=4 is not slog's debug level")
	}
}

// TestLoggerRepeatsNothing: a record that says the same as the one before it is left out, unless somebody asks for more.
func TestLoggerRepeatsNothing(t *testing.T) {
	t.Parallel()
	for verbosity, want := range []string{
		"level=WARN msg=full disk=a\nlevel=WARN msg=full disk=b\nlevel=WARN msg=full disk=a\nlevel=WARN msg=full node=x disk=a\n",
		"level=WARN msg=full disk=a\nlevel=WARN msg=full disk=a\nlevel=WARN msg=full disk=b\nlevel=WARN msg=full disk=a\nlevel=WARN msg=full node=x disk=a\n",
	} {
		var out strings.Builder
		log := cli.Logging{Verbosity: verbosity}.Logger(&out)
		for _, disk := range []string{"a", "a", "b", "a"} {
			log.Warn("full", "disk", disk)
		}
		log.With("node", "x").Warn("full", "disk", "a")
		if diff := cmp.Diff(want, timeless(out.String())); diff != "" {
			t.Errorf("-v=%d (-want +got):\n%s", verbosity, diff)
		}
	}
}

// timeless drops the first value of every line, the time.
func timeless(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		if rest, ok := strings.CutPrefix(line, `{"time":`); ok {
			_, rest, _ = strings.Cut(rest, ",")
			b.WriteString("{" + rest)
			continue
		}
		_, rest, _ := strings.Cut(line, " ")
		b.WriteString(rest)
	}
	return b.String()
}
