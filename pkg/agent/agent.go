// Package agent is the daemon and its commands: it turns the config file into a policy, hands that to package node, and does
// so again whenever there is a reason to.
//
// It refuses to hold rules or to run programs itself, and to stop healing for any error: a bad config leaves the last good
// policy in force, a failed sync is tried again.
package agent

import (
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/flows"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
)

// Program is one invocation: where it prints, and to whom.
type Program struct {
	Stdout io.Writer
	Stderr io.Writer
}

// Main runs the command that the arguments name and returns the exit status.
func (p Program) Main(args []string) int {
	return cli.Execute(p.Commands(), args, p.Stdout, p.Stderr)
}

// Commands is the command line. The program without a command is the daemon, as the Kubernetes agent is.
func (p Program) Commands() *cobra.Command {
	root := command("ip-masq-agent", "keep the kernel's masquerade rules equal to the config file",
		func(f *flags) { f.kernel().syncing().daemon() }, p.run)
	root.Long = "ip-masq-agent keeps the kernel's masquerade rules equal to the config file. Without a command it is the daemon.\n\n" +
		"Exit status: 0 done, 1 failed, 2 bad usage. Flags may have one dash or two."
	root.Args = nil // the names of commands
	root.AddCommand(
		command("run", "keep the kernel equal to the config, continuously (the default command)",
			func(f *flags) { f.kernel().syncing().daemon() }, p.run),
		command("sync", "make the kernel equal to the config once; exit status 0 when both are equal now",
			func(f *flags) { f.kernel().syncing() }, p.sync),
		command("render", "print what would be applied; the kernel is not touched",
			func(f *flags) { f.kernel().output() }, p.render),
		command("status", "show daemon, backend, policy, drift, plugin, pods, conflicts, repairs and counters",
			func(f *flags) { f.kernel().places().output().watching() }, p.status),
		command("check", "ask what is wrong with this node; exit status 0 nothing, 3 warnings, 1 something is broken",
			func(f *flags) { f.kernel().places().output() }, p.check),
		command("explain", "follow a packet from --src POD to --dst ADDRESS[:PORT]: verdict, reason, rule, and what is in the way",
			func(f *flags) { f.kernel().places().output().packet() }, p.explain),
		command("who ADDRESS:PORT", "name the pod behind a source address and port of this node; exit status 1 when none is found",
			func(f *flags) { f.kernel().output().connection().translationFile() }, p.who),
		command("cleanup", "remove everything managed by ip-masq from this node",
			func(f *flags) { f.kernel().dryRun() }, p.cleanup),
		command("uninstall", "take plugin, entry, rules and records off this node, when no pod needs them any more, and stay",
			func(f *flags) { f.kernel().syncing().daemon().leaving() }, p.uninstall),
		command("lint FILE", "check a config file, - for stdin; exit status 1 when it has errors",
			func(f *flags) { f.settings().output().ranges() }, p.lint),
	)
	return root
}

// command makes one. A use of two words names the argument that it takes.
func command(use, short string, register func(*flags), run func(o Options, args []string) error) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cli.NoArgs}
	if _, argument, ok := strings.Cut(use, " "); ok {
		c.Args = cli.OneArg(argument)
	}
	f := newFlags(c.Flags())
	register(f)
	for name, words := range completions {
		if c.Flags().Lookup(name) != nil {
			_ = c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
		}
	}
	c.RunE = func(_ *cobra.Command, args []string) error {
		if err := f.finish(); err != nil {
			return cli.Usage(err)
		}
		return run(f.Options, args)
	}
	return c
}

// completions are the values that shells offer for a flag.
var completions = map[string][]string{
	"backend":         {"auto", "iptables", "nftables"},
	"sources":         {"pods", "all"},
	"conntrack-flush": {"changed", "udp", "none"},
	"output":          {formatText, formatJSON, formatYAML},
	"log-format":      {"text", "json"},
}

func newNode(o Options, log *slog.Logger) *node.Node {
	return node.New(node.Options{
		StateDir: o.StateDir, DataDir: o.DataDir, Host: o.HostRoot, Choice: o.Backend, Owner: true, Defaults: o.Settings,
		Runtime: o.Cache, Flows: func() node.FlowChange { return flows.Begin(o.Flows) }, Diff: backend.Backend.Diff, KeepCounts: backend.KeepCounts, Log: log,
	})
}

// discard is the log of commands whose result is what they print.
func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
