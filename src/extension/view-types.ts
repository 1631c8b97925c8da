/** View type of the `.igvm` custom editor; the manifest has the same. */
export const SUMMARY_EDITOR = 'cvm.igvmSummary';
