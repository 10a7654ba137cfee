// Package dirwatch tells what is written in directories that may not exist yet, and may go and come back.
//
// It refuses to read what is written. It is apart from package cnicache, whose users it serves, because the plugin uses that and
// watches nothing.
package dirwatch

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// Watch calls changed with the path of each file that was written or that appeared in one of the directories, and with "" where
// anything may have, and removed with that of each file that was removed, until ctx ends. The directories may not exist yet, may be
// removed, renamed and made again: each directory on the way to them is watched too.
func Watch(ctx context.Context, dirs []string, changed, removed func(path string)) error {
	notifier, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch directories: %w", err)
	}
	w := &watch{notifier: notifier, dirs: dirs, changed: changed, removed: removed}
	w.arm()
	go func() {
		defer func() { _ = notifier.Close() }()
		w.run(ctx)
	}()
	return nil
}

type watch struct {
	notifier *fsnotify.Watcher
	dirs     []string

	changed, removed func(path string)
}

// arm watches what exists of every path. A directory that is watched already is not watched twice.
func (w *watch) arm() {
	for _, dir := range w.dirs {
		for path := filepath.Clean(dir); ; path = filepath.Dir(path) {
			_ = w.notifier.Add(path) // what is not there yet is seen when it appears in its parent
			if path == filepath.Dir(path) {
				break
			}
		}
	}
}

func (w *watch) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case event, ok := <-w.notifier.Events:
			if !ok {
				return
			}
			w.event(event)
		case err, ok := <-w.notifier.Errors:
			if !ok {
				return
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				w.arm()
				w.changed("")
			}
		}
	}
}

func (w *watch) event(event fsnotify.Event) {
	switch {
	case w.leadsTo(event.Name):
		// A directory that is renamed or removed keeps its watch for a moment, and would not be watched when it is made again.
		if event.Has(fsnotify.Rename) || event.Has(fsnotify.Remove) {
			w.drop(event.Name)
		}
		if !event.Has(fsnotify.Create) && !event.Has(fsnotify.Rename) && !event.Has(fsnotify.Remove) {
			return
		}
		w.arm()
		w.changed("")
	case w.inside(event.Name) && (event.Has(fsnotify.Create) || event.Has(fsnotify.Write)):
		w.changed(event.Name)
	case w.inside(event.Name) && event.Has(fsnotify.Remove):
		w.removed(event.Name)
	}
}

// drop forgets a directory and what is below it.
func (w *watch) drop(path string) {
	for _, watched := range w.notifier.WatchList() {
		if watched == path || strings.HasPrefix(watched, path+"/") {
			_ = w.notifier.Remove(watched)
		}
	}
}

// leadsTo says whether the path is one of the directories or on the way to one.
func (w *watch) leadsTo(path string) bool {
	for _, dir := range w.dirs {
		if path == dir || strings.HasPrefix(dir, path+"/") {
			return true
		}
	}
	return false
}

func (w *watch) inside(path string) bool {
	for _, dir := range w.dirs {
		if filepath.Dir(path) == filepath.Clean(dir) {
			return true
		}
	}
	return false
}
