package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/filelock"
	"github.com/ip-masq/ip-masq-cni/pkg/socket"
	"github.com/ip-masq/ip-masq-cni/pkg/status"
)

// How long a daemon may take to say that it is there, and how often it is asked while one begins or ends.
const (
	greetingTime     = 2 * time.Second
	greetingInterval = 50 * time.Millisecond
)

// askDaemon has the daemon answer a request, whatever it takes until ctx ends. It returns whether a daemon runs and whether it
// responds, which it has to within greetingTime; the error says why one cannot be asked, or what it answers. A daemon that ends meanwhile is asked
// again, if another follows. Where accept refuses the daemon, nothing is asked.
func askDaemon(ctx context.Context, o Options, accept func(greeting) error, method, path string, into any) (status.Daemon, error) {
	client := socket.NewClient(o.StateDir)
	for {
		daemon, hello, err := greet(ctx, client, o.StateDir)
		if !daemon.Responding {
			return daemon, err
		}
		if err := accept(hello); err != nil {
			return daemon, err
		}
		err = client.Do(ctx, method, path, into)
		var refused *socket.Refused
		if err == nil || errors.As(err, &refused) || ctx.Err() != nil {
			return daemon, err
		}
		pause(ctx, greetingInterval)
	}
}

// greeting is what a daemon says first.
type greeting struct {
	APIVersion string            `json:"apiVersion"`
	PID        int               `json:"pid"`
	Version    string            `json:"version"`
	Flags      map[string]string `json:"flags"` // those that decide what the rules look like
}

// greet finds out whether a daemon runs and responds. One that holds its lock and does not listen may be about to begin or to
// end, so it is asked until greetingTime is over. The error is that of a user who may not ask.
func greet(ctx context.Context, client *socket.Client, stateDir string) (daemon status.Daemon, hello greeting, err error) {
	ctx, cancel := context.WithTimeout(ctx, greetingTime)
	defer cancel()
	for {
		hello = greeting{}
		err = client.Do(ctx, http.MethodGet, "/v1/version", &hello)
		if errors.Is(err, fs.ErrPermission) {
			return status.Daemon{}, hello, fmt.Errorf("whether a daemon runs is not known, run this as root: %w", err)
		}
		if err == nil {
			return status.Daemon{Running: true, Responding: true, PID: pidOf(client.PID(), hello.PID), Version: &hello.Version}, hello, nil
		}
		held := filelock.Check(filepath.Join(stateDir, lockName), filelock.Shared)
		var holders *filelock.HeldError
		switch {
		case !errors.As(held, &holders):
			if errors.Is(err, socket.ErrNobody) || ctx.Err() != nil {
				return status.Daemon{}, hello, nil
			}
		case ctx.Err() != nil:
			daemon = status.Daemon{Running: true}
			if len(holders.Holders) > 0 {
				daemon.PID = &holders.Holders[0].PID
			}
			return daemon, hello, nil
		}
		pause(ctx, greetingInterval)
	}
}

// pidOf prefers the process as it is seen from here to what it says itself, which may be of another container.
func pidOf(seen, said int) *int {
	if seen != 0 {
		return &seen
	}
	return &said
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
