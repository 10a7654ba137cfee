package translog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// file is a log that is rotated by size: FILE is the newest, then FILE.1, FILE.2 and so on.
type file struct {
	path     string
	maxSize  int64
	maxFiles int
	open     *os.File
	size     int64
}

// write appends whole lines, or none: what a full disk took of them is taken back.
func (f *file) write(lines []byte) error {
	if err := f.prepare(int64(len(lines))); err != nil {
		return err
	}
	n, err := f.open.Write(lines)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, f.open.Truncate(f.size))
		}
		f.close()
		return err
	}
	f.size += int64(n)
	return nil
}

// prepare opens the file, makes room in it, and notices when somebody moved it away.
func (f *file) prepare(coming int64) error {
	if f.open != nil && f.moved() {
		f.close()
	}
	if f.open == nil {
		if err := f.reopen(); err != nil {
			return err
		}
	}
	if f.size == 0 || f.size+coming <= f.maxSize {
		return nil
	}
	if err := f.rotate(); err != nil {
		return fmt.Errorf("rotate the log: %w", err)
	}
	return f.reopen()
}

func (f *file) moved() bool {
	now, err1 := os.Stat(f.path)
	mine, err2 := f.open.Stat()
	return err1 != nil || err2 != nil || !os.SameFile(now, mine)
}

// reopen goes on behind the last whole line: a line that a crash cut is ended.
func (f *file) reopen() error {
	open, err := os.OpenFile(f.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := open.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", f.path)
	}
	if err == nil {
		err = open.Chmod(0o600) // an older file may be readable by others
	}
	if err != nil {
		_ = open.Close()
		return err
	}
	f.open, f.size = open, info.Size()
	last := make([]byte, 1)
	if f.size > 0 {
		if _, err := open.ReadAt(last, f.size-1); err == nil && last[0] != '\n' {
			n, _ := open.Write([]byte{'\n'})
			f.size += int64(n)
		}
	}
	return nil
}

// rotate moves every file one place on; the oldest goes.
func (f *file) rotate() error {
	err := f.open.Sync()
	f.close()
	for i := f.maxFiles - 1; i >= 1 && err == nil; i-- {
		err = os.Rename(rotated(f.path, i-1), rotated(f.path, i))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if f.maxFiles == 1 && err == nil {
		err = os.Remove(f.path)
	}
	for i := f.maxFiles; os.Remove(rotated(f.path, i)) == nil; i++ { // of a time when more were kept
	}
	return err
}

func (f *file) close() {
	if f.open != nil {
		_ = f.open.Close()
		f.open = nil
	}
}

// end closes the file for good.
func (f *file) end() {
	if f.open != nil {
		_ = f.open.Sync()
	}
	f.close()
}

func rotated(path string, number int) string {
	if number == 0 {
		return path
	}
	return fmt.Sprintf("%s.%d", path, number)
}

// block is some lines on their way to the disk.
type block struct {
	lines []byte
	count int
}

// The room for lines that the disk has not taken: a block is handed over when it is full, or blockTime after the last.
const (
	blockSize = 64 << 10
	blocks    = 128
	blockTime = 100 * time.Millisecond
)
