package agent

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/status"
	"github.com/ip-masq/ip-masq-cni/pkg/version"
)

// watchTime is the interval of status --watch.
const watchTime = 2 * time.Second

// status shows the node as the daemon sees it, or where none answers as it is seen from here. It exits with 0 whenever it could
// look.
func (p Program) status(o Options, _ []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	for {
		s := p.ask(ctx, o)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the user ended it
		}
		if o.Watch && p.terminal() {
			_, _ = fmt.Fprint(p.Stdout, "\x1b[H\x1b[2J")
		}
		if err := p.print(o, s, func() { s.Print(p.Stdout, p.style()) }); err != nil || !o.Watch {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchTime):
		}
		if !p.terminal() && o.Format == formatText {
			_, _ = fmt.Fprintln(p.Stdout)
		}
	}
}

// check answers the questions of package status about the node.
func (p Program) check(o Options, _ []string) error {
	checks := status.Judge(p.ask(context.Background(), o), version.String())
	if err := p.print(o, checks, func() { checks.Print(p.Stdout, p.style()) }); err != nil {
		return err
	}
	if code := checks.Exit(); code != 0 {
		return cli.Exit(code)
	}
	return nil
}

// ask has the daemon describe the node, and does so itself where none answers.
func (p Program) ask(ctx context.Context, o Options) status.Status {
	ctx, cancel := context.WithTimeout(ctx, syncTime)
	defer cancel()
	var s status.Status
	daemon, err := askDaemon(ctx, o, p.warnOfFlags(o), http.MethodGet, "/v1/status", &s)
	if err == nil && daemon.Responding {
		if daemon.PID != nil {
			s.Daemon.PID = daemon.PID
		}
		return s
	}
	if err != nil {
		_, _ = fmt.Fprintf(p.Stderr, "ip-masq-agent: %v\n", err)
	}
	f := p.inForce(o)
	s = look(ctx, o, f)
	s.Daemon = daemon
	records, _ := newNode(o, discard()).Records()           // what cannot be read has no name
	addresses, _ := node.SourceAddresses(f.policy, records) // and no address is none to share
	if report, err := samplePorts(node.Rules{Policy: f.policy, Addresses: addresses}); err == nil {
		s.Ports = withNames(report, records)
	}
	return s
}

// warnOfFlags names flags that mean nothing because the daemon answers by its own.
func (p Program) warnOfFlags(o Options) func(greeting) error {
	return func(daemon greeting) error {
		if names := o.differing(daemon.Flags); names != "" {
			_, _ = fmt.Fprintf(p.Stderr, "ip-masq-agent: the daemon answers by its own flags: %s had no effect\n", names)
		}
		return nil
	}
}

// inForce finds the policy that the daemon had: its flags are in the persisted policy, and count unless this call was given
// its own.
func (p Program) inForce(o Options) inForce {
	s := p.commandSource(o, newNode(o, discard()))
	inForcePolicy, err := s.load()
	return inForce{policy: inForcePolicy, origin: s.origin, configErr: err, hash: s.hash, config: s.config, clearOf: s.clearOf()}
}

// terminal reports whether people look at stdout directly.
func (p Program) terminal() bool {
	file, isFile := p.Stdout.(*os.File)
	if !isFile {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// style has colors on terminals only, and not where NO_COLOR is set (https://no-color.org).
func (p Program) style() status.Style {
	return status.Style{Colors: p.terminal() && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb", Now: time.Now()}
}
