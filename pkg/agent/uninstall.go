package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"syscall"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/filelock"
	"github.com/ip-masq/ip-masq-cni/pkg/install"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/probes"
)

// The pace of uninstall: what it waits for is looked at this often, and once it is done whether that is still so.
const (
	leavePause = 500 * time.Millisecond
	cleanPause = 10 * time.Second
)

// uninstaller takes everything managed by ip-masq off the node and stays. It does the same at every turn, whatever an earlier
// one, or one that was killed, left: the entry out of the lists, then, when no pod names the plugin, rules, records and binary.
type uninstaller struct {
	options Options
	leaving install.Leaving
	log     *slog.Logger
	health  *probes.Health
	lock    *filelock.Lock // while this is the node's agent

	stopDaemon func() // nil while none keeps the rules of pods that are still there
	lastLogged string
}

// errWaiting is in the reason while the node has to wait for other programs.
var errWaiting = errors.New("waiting")

// uninstall is the command. It ends on SIGTERM or SIGINT, with 0.
func (p Program) uninstall(o Options, _ []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	u := &uninstaller{options: o, log: o.Logging.Logger(p.Stderr), health: probes.NewHealth("the node has not been looked at yet", 4*syncTime)}
	var err error
	u.leaving, err = install.Leave(install.Options{
		BinDir: o.BinDir, ConfDir: o.Cache.ConfDir, CacheDir: o.Cache.Dir, StateDir: o.StateDir, DataDir: o.DataDir,
	}, func(line string) { u.log.Info(line) })
	if err != nil {
		return err
	}
	if o.MetricsAddress != "" {
		go u.serve(ctx)
	}
	u.log.Info("removing ip-masq from this node", "wait", o.Wait)
	for ctx.Err() == nil {
		u.turn(ctx, p)
	}
	u.endDaemon()
	if u.lock != nil {
		u.lock.Release()
	}
	u.log.Info("stopping")
	return nil
}

// serve answers the probes. The agent that ran before may still have the address for a moment.
func (u *uninstaller) serve(ctx context.Context) {
	for warned := false; ctx.Err() == nil; wait(ctx, leavePause) {
		listener, err := probes.Listen(ctx, u.options.MetricsAddress)
		if err == nil {
			probes.Serve(ctx, listener, probes.Handler(u.health, probes.NewMetrics("ip_masq_agent_", u.health)))
			return
		}
		if !warned && ctx.Err() == nil {
			u.log.Error("the probes cannot be served; trying again", "error", err)
		}
		warned = true
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// turn does what can be done now, says what is left, and pauses.
func (u *uninstaller) turn(ctx context.Context, p Program) {
	err := u.step(ctx, p)
	if ctx.Err() != nil {
		return
	}
	u.health.Set(err)
	u.health.Turned(4*syncTime + cleanPause)
	text := "ip-masq is off this node"
	if err != nil {
		text = err.Error()
	}
	if text != u.lastLogged {
		u.lastLogged = text
		switch {
		case err == nil:
			u.log.Info(text)
		case errors.Is(err, errWaiting):
			u.log.Info("not ready", "reason", err)
		default:
			u.log.Warn("not ready; trying again", "reason", err)
		}
	}
	if err == nil {
		wait(ctx, cleanPause)
		return
	}
	wait(ctx, leavePause)
}

// step is one turn. The error says why the node is not clean yet.
func (u *uninstaller) step(ctx context.Context, p Program) error {
	if err := u.leaving.RemoveEntries(ctx); err != nil {
		return fmt.Errorf("the entry cannot be taken out of every list: %w", err)
	}
	if err := u.holdNode(); err != nil {
		return err
	}
	source := p.commandSource(u.options, newNode(u.options, discard()))
	n := newNode(source.options, u.log)
	pods, example, err := u.pods(n)
	if err != nil {
		return err
	}
	if pods > 0 && u.options.Wait {
		u.keepRules(ctx, source.options)
		return fmt.Errorf("%w until %d pods are gone that name the plugin, such as %s; delete or restart them, or do not wait (--wait=false)", errWaiting, pods, example)
	}
	u.endDaemon()
	if err := n.Cleanup(ctx); err != nil {
		return fmt.Errorf("rules and records: %w", err)
	}
	if pods > 0 {
		// Only --wait=false comes here. The binary goes when the last of these pods is deleted, which needs it.
		u.log.Log(ctx, cli.V(2), "the plugin stays until its pods are gone", "binary", u.leaving.Binary(), "pods", pods)
		return nil
	}
	if !u.leaving.HasBinary() {
		return nil
	}
	return u.leaving.RemoveBinary(ctx)
}

// holdNode makes this the node's agent. The one of before ends soon: its pod is being replaced.
func (u *uninstaller) holdNode() error {
	if u.lock != nil && u.lock.Current() {
		return nil
	}
	lock, err := hold(u.options.StateDir)
	var held *filelock.HeldError
	if errors.As(err, &held) {
		return fmt.Errorf("%w until the agent ends: %w", errWaiting, err)
	}
	if err != nil {
		return err
	}
	u.lock = lock
	return nil
}

// pods counts those whose deletion will call the plugin. Where the runtime has no cache, the records tell.
func (u *uninstaller) pods(n *node.Node) (count int, example string, err error) {
	if u.leaving.CacheExists() {
		return u.leaving.Attached()
	}
	records, err := n.Records()
	for _, a := range records {
		if a.NetNS.Alive() {
			count, example = count+1, a.ContainerID
		}
	}
	return count, example, err
}

// keepRules repairs the rules of pods that are still there, as the daemon does.
func (u *uninstaller) keepRules(ctx context.Context, o Options) {
	if u.stopDaemon != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	d := newDaemon(ctx, o, u.log)
	d.source.persistedFirst = true
	go func() {
		defer close(ended)
		d.loop(ctx, o.Config.Path)
	}()
	u.stopDaemon = func() { cancel(); <-ended }
}

func (u *uninstaller) endDaemon() {
	if u.stopDaemon != nil {
		u.stopDaemon()
		u.stopDaemon = nil
	}
}
