package iptables

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// run starts one program in the host's root and waits for it. The program dies with us: one that lives on, waiting for a lock say, would write
// behind the back of whoever cleans up after us. That takes staying on one thread, because the kernel means the thread.
//
// Its input and output are files in memory, not pipes: a pipe is at its end only when every process that inherited it is gone
// or has started its program, which takes a while where fifty are being started.
func (h Host) run(ctx context.Context, program string, args []string, input string) (string, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var files [3]*os.File // stdin, stdout, stderr
	for i := range files {
		file, err := memfile()
		if err != nil {
			return "", fmt.Errorf("start %s: %w", program, err)
		}
		defer func() { _ = file.Close() }()
		files[i] = file
	}
	if _, err := files[0].WriteAt([]byte(input), 0); err != nil {
		return "", fmt.Errorf("start %s: %w", program, err)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Chroot: string(h)}
	if h != "" {
		cmd.Dir = "/"
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	err := cmd.Run()
	if err == nil {
		return textOf(files[1]), nil
	}
	if cmd.ProcessState == nil {
		return "", fmt.Errorf("start %s: %w", program, err)
	}
	return "", newExitError(program, cmd.ProcessState, textOf(files[2]))
}

// memfile returns an empty file without a name (Linux 3.17).
func memfile() (*os.File, error) {
	fd, err := unix.MemfdCreate("iptables", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	return os.NewFile(uintptr(fd), "iptables"), nil
}

// textOf reads a file from its start, wherever its writer left the position.
func textOf(file *os.File) string {
	info, err := file.Stat()
	if err != nil {
		return ""
	}
	data := make([]byte, info.Size())
	n, _ := file.ReadAt(data, 0)
	return string(data[:n])
}
