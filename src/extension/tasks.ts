/** Tasks of type `cvm`: the command line that comes with the extension, its findings in the Problems view. Node only. */
import * as vscode from 'vscode';

interface CvmTask extends vscode.TaskDefinition {
  readonly command: 'check' | 'measure' | 'list' | 'explain' | 'diff';
  readonly file: string;
  readonly args?: readonly string[];
}

/** What is offered without a tasks.json: a check of every image in the workspace. */
const MOST_OFFERED = 20;

export function registerTasks(context: vscode.ExtensionContext): void {
  const bundle = context.asAbsolutePath('dist/cvm.cjs');
  const create = (definition: CvmTask, scope: vscode.WorkspaceFolder | vscode.TaskScope): vscode.Task => {
    const { command, file, args = [] } = definition;
    const task = new vscode.Task(
      definition,
      scope,
      `${command} ${file}`,
      'cvm',
      // The editor's own runtime is the Node.js of the command line.
      new vscode.ProcessExecution(process.execPath, [bundle, command, file, ...args], {
        env: { ELECTRON_RUN_AS_NODE: '1' },
      }),
      '$cvm',
    );
    if (command === 'check') task.group = vscode.TaskGroup.Test;
    return task;
  };
  context.subscriptions.push(
    vscode.tasks.registerTaskProvider('cvm', {
      async provideTasks() {
        const found = await vscode.workspace.findFiles('**/*.igvm', '**/node_modules/**', MOST_OFFERED);
        return found.map((file) => {
          const folder = vscode.workspace.getWorkspaceFolder(file);
          const definition: CvmTask = {
            type: 'cvm',
            command: 'check',
            file: vscode.workspace.asRelativePath(file, false),
          };
          return create(definition, folder ?? vscode.TaskScope.Workspace);
        });
      },
      resolveTask(task) {
        const definition = task.definition as Partial<CvmTask>;
        if (!definition.command || !definition.file) return undefined;
        return create(task.definition as CvmTask, task.scope ?? vscode.TaskScope.Workspace);
      },
    }),
  );
}
