package bench

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// A worker is this test binary once more, inside the namespaces of a host: it runs programs and takes their cost, and it
// holds a node as the agent does. So nothing has to move between namespaces while something is measured, and what is
// started has a small parent.

// worker is what it serves to the test. The methods are remote procedures: one argument, one reply.
type worker struct {
	node   *node.Node
	policy policy.Policy // of the last Sync
}

// Command is a program to run.
type Command struct {
	Args  []string
	Env   []string
	Stdin string
}

// Cost is what something took: processor time of user and system, children included, and time on the clock.
type Cost struct{ CPU, Wall time.Duration }

// Outcome is how a program ended.
type Outcome struct {
	Cost
	Code           int
	Stdout, Stderr string
}

// serveWorker answers one caller and returns when that goes away.
func serveWorker(socket string) error {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := rpc.NewServer()
	if err := server.RegisterName("Worker", &worker{}); err != nil {
		return err
	}
	conn, err := listener.Accept()
	if err == nil {
		server.ServeConn(conn)
	}
	return err
}

// Run runs one program.
func (w *worker) Run(c Command, o *Outcome) error { return run(c, o) }

// Burst runs all programs at once. The cost is the clock from the first start to the last end, and all processor time.
func (w *worker) Burst(all []Command, total *Outcome) error {
	outcomes := make([]Outcome, len(all))
	failures := make([]error, len(all))
	var group sync.WaitGroup
	start := time.Now()
	for i := range all {
		group.Go(func() { failures[i] = run(all[i], &outcomes[i]) })
	}
	group.Wait()
	total.Wall = time.Since(start)
	for _, o := range outcomes {
		total.CPU += o.CPU
		if o.Code != 0 {
			total.Code++
			total.Stderr = o.Stdout + o.Stderr
		}
	}
	return errors.Join(failures...)
}

func run(c Command, o *Outcome) error {
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Env = append(os.Environ(), c.Env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.Stdin), &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	o.Wall = time.Since(start)
	if cmd.ProcessState == nil {
		return err
	}
	o.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	o.Code, o.Stdout, o.Stderr = cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
	return nil
}

// NodeOptions are the part of node.Options that can travel.
type NodeOptions struct {
	StateDir, DataDir string
	Choice            registry.Choice
}

// Open makes the worker an agent.
func (w *worker) Open(o NodeOptions, _ *struct{}) error {
	w.node = node.New(node.Options{
		StateDir: o.StateDir, DataDir: o.DataDir, Choice: o.Choice, Owner: true, Defaults: policy.DefaultSettings(),
	})
	return nil
}

// Synced is what a sync did and took.
type Synced struct {
	Cost
	node.Result
}

// Sync does what the agent does whenever anything tells it to.
func (w *worker) Sync(p policy.Policy, s *Synced) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if !p.Equal(w.policy) { // the daemon keeps a policy until its file changes
		w.policy = p
	}
	s.Cost = metered(func() { s.Result, err = w.node.Sync(ctx, w.policy) })
	return err
}

// Load reads a configuration file, as the agent does when that has changed.
func (w *worker) Load(path string, c *Cost) (err error) {
	*c = metered(func() { _, _, err = config.Load(config.Options{Path: path}) })
	return err
}

// Standing counts the attachments on record whose container begins with the prefix and whose rules are in the kernel.
func (w *worker) Standing(prefix string, n *int) error {
	records, err := w.node.Records()
	for _, a := range records {
		if strings.HasPrefix(a.ContainerID, prefix) && w.node.Check(context.Background(), a) == nil {
			*n++
		}
	}
	return err
}

// metered is for what happens in this process and its children. Garbage of earlier steps is not charged to this one.
func metered(do func()) Cost {
	runtime.GC()
	before, start := usage(), time.Now()
	do()
	return Cost{CPU: usage() - before, Wall: time.Since(start)}
}

func usage() (sum time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var r syscall.Rusage
		if syscall.Getrusage(who, &r) == nil {
			sum += time.Duration(r.Utime.Nano() + r.Stime.Nano())
		}
	}
	return sum
}
