package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/paths"
)

// Options are the flags.
type Options struct {
	BinDir, ConfDir, CacheDir string
	StateDir, DataDir         string
	SourceDir                 string
	ConfFile                  string
	Entry                     []byte // nil: the default, or what is there
	AllowIPMasq               bool
	Force                     bool // also where the rules will not see the pods' packets
	DryRun                    bool
	MetricsAddress            string
	Logging                   cli.Logging

	otherConfDirs []string // nil: runtimeDirs
}

// Command is the program's command line.
func Command() *cobra.Command {
	root := &cobra.Command{
		Use:   "ip-masq-installer",
		Short: "put the CNI plugin ip-masq onto a node, and take it off again",
		Long: "ip-masq-installer puts the CNI plugin ip-masq onto a node and into the network that the node's container runtime loads,\n" +
			"keeps it there, and takes it out again.\n\n" +
			"Exit status: 0 done, or nothing to do; 1 failed or refused; 2 usage; 3 not possible now, try again later.",
		TraverseChildren: true, // a flag before the command is a mistake: the root has none
		RunE: func(*cobra.Command, []string) error {
			return cli.Usage(errors.New("want one of install, watch, uninstall"))
		},
	}
	root.AddCommand(
		verb("install", "install the plugin, and its entry in the conflist", func(ctx context.Context, c *cobra.Command, o Options) error {
			i := &installer{Options: o, print: printer(c), warn: func(line string) {
				_, _ = fmt.Fprintln(c.ErrOrStderr(), "warning: "+line)
			}}
			if o.DryRun {
				return i.preview(ctx, c.OutOrStdout())
			}
			changed, err := i.pass(ctx)
			if err == nil && changed == "" {
				i.print("nothing to do: " + i.state)
			}
			return err
		}),
		verb("watch", "install, then repair continuously", func(ctx context.Context, c *cobra.Command, o Options) error {
			return newWatcher(o, c.ErrOrStderr()).run(ctx)
		}),
		verb("uninstall", "remove the entry, and the plugin when nothing needs it any more", func(ctx context.Context, c *cobra.Command, o Options) error {
			i := &installer{Options: o, print: printer(c)}
			if o.DryRun {
				return i.previewRemoval(c.OutOrStdout())
			}
			return i.remove(ctx)
		}),
	)
	return root
}

func printer(c *cobra.Command) func(string) {
	return func(line string) { _, _ = fmt.Fprintln(c.OutOrStdout(), line) }
}

// verb makes a command. All of them take the same flags, so that one list of paths serves a node's install, watch and uninstall.
func verb(name, short string, run func(context.Context, *cobra.Command, Options) error) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short, Args: cobra.NoArgs}
	var o Options
	var entry string
	f := c.Flags()
	cli.Text(f, &o.BinDir, "cni-bin-dir", paths.CNIBinDir, "`directory` where the runtime looks for plugins")
	cli.Text(f, &o.ConfDir, "cni-conf-dir", paths.CNIConfDir, "`directory` where the runtime looks for networks")
	cli.Text(f, &o.CacheDir, "cni-cache-dir", paths.CNICacheDir, "`directory` whose results/ holds the runtime's attachments")
	cli.Text(f, &o.StateDir, "state-dir", paths.StateDir, "`directory` for locks; may be missing")
	cli.Text(f, &o.DataDir, "data-dir", paths.DataDir, "`directory` of the agent's policy; the installer keeps nothing there")
	f.StringVar(&o.SourceDir, "source-dir", "", "`directory` that holds the plugin to copy (default: the installer's own)")
	f.StringVar(&o.ConfFile, "conf-file", "", "`name` of the file in --cni-conf-dir to edit (default: the one that the runtime loads)")
	f.StringVar(&entry, "entry", "", "the whole entry of ip-masq, as `JSON` (default: the one that is there, or "+defaultEntry+")")
	f.BoolVar(&o.AllowIPMasq, "allow-ipmasq", false, "accept a list whose main plugin masquerades by itself")
	f.BoolVar(&o.Force, "force", false, "accept a list whose pods' packets never meet the node's rules (macvlan, ipvlan in L2 mode, host-device, SR-IOV)")
	if name == "watch" {
		cli.Address(f, &o.MetricsAddress, "metrics-bind-address", paths.InstallerAddress, "`address` for /readyz, /livez, /healthz and /metrics; empty serves nothing")
		o.Logging.Register(f)
	} else {
		f.BoolVar(&o.DryRun, "dry-run", false, "print a diff of what would be done, and touch nothing")
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		if f.Changed("entry") {
			o.Entry = []byte(strings.TrimSpace(entry))
		}
		if err := errors.Join(o.checkEntry(), o.checkConfFile(), o.makeAbsolute()); err != nil {
			return cli.Usage(err)
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		if err := run(ctx, c, o); err != nil {
			return exitError{err}
		}
		return nil
	}
	return c
}

func (o *Options) makeAbsolute() (err error) {
	if o.SourceDir == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("--source-dir: %w", err)
		}
		o.SourceDir = filepath.Dir(self)
	}
	for _, dir := range []*string{&o.BinDir, &o.ConfDir, &o.CacheDir, &o.StateDir, &o.DataDir, &o.SourceDir} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) checkConfFile() error {
	switch name := o.ConfFile; {
	case name == "":
		return nil
	case name != filepath.Base(name):
		return fmt.Errorf("--conf-file %q: want the name of a file in --cni-conf-dir, without a directory", name)
	case !slices.Contains(loadable, filepath.Ext(name)):
		return fmt.Errorf("--conf-file %q: runtimes load only names that end in one of %v", name, loadable)
	}
	return nil
}

func (o *Options) checkEntry() error {
	if o.Entry == nil {
		return nil
	}
	var entry pluginConf
	if err := json.Unmarshal(o.Entry, &entry); err != nil {
		return fmt.Errorf("--entry: %w", err)
	}
	if entry.Type != pluginType {
		return fmt.Errorf("--entry: want an object with \"type\": %q", pluginType)
	}
	return nil
}

// errNotNow marks what another program or person has to do first: the network's owner, the runtime, or whoever started a watch.
// All else that goes wrong needs a person.
var errNotNow = errors.New("not possible now")

func notNow(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errNotNow, fmt.Errorf(format, args...))
}

// exitError is the one place where a failure gets its status and its line.
type exitError struct{ error }

func (e exitError) Unwrap() error { return e.error }

// ExitCode returns 3 for what is not possible now, and 1 for everything else.
func (e exitError) ExitCode() int {
	if errors.Is(e.error, errNotNow) {
		return 3
	}
	return cli.StatusFailure
}

// Error is one line, with a fix where the kernel's word for it names none.
func (e exitError) Error() string {
	line := strings.ReplaceAll(e.error.Error(), "\n", "; ")
	switch {
	case errors.Is(e.error, unix.EROFS):
		line += "; is it mounted read-only? The directories are flags: --cni-bin-dir, --cni-conf-dir"
	case errors.Is(e.error, unix.ENOSPC), errors.Is(e.error, unix.EDQUOT):
		line += "; free some space there, and run it again"
	case errors.Is(e.error, unix.EACCES), errors.Is(e.error, unix.EPERM):
		line += "; the installer needs to run as root, with SELinux letting it, and the plugin's directory must not be mounted noexec"
	}
	return line
}
