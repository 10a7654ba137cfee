package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const holderFile = "agent.lock"

// holderWait lets an agent that is being replaced end first.
const holderWait = time.Second

// hold makes this process the only agent of a state directory until it ends, or says who is.
func hold(stateDir string) (*os.File, error) {
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	path := filepath.Join(stateDir, holderFile)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the agent's lock: %w", err)
	}
	for end := time.Now().Add(holderWait); ; time.Sleep(20 * time.Millisecond) {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file, inscribe(file)
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			break
		}
	}
	defer func() { _ = file.Close() }()
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return nil, fmt.Errorf("another agent runs on this node: %s holds %s; end it first, or give this one its own --state-dir", holder(file), path)
}

func inscribe(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return fmt.Errorf("write the agent's lock: %w", err)
	}
	if _, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("write the agent's lock: %w", err)
	}
	return nil
}

func holder(file *os.File) string {
	text := make([]byte, 32)
	n, _ := file.ReadAt(text, 0)
	pid := strings.TrimSpace(string(text[:n]))
	if pid == "" {
		return "a process"
	}
	return "process " + pid
}
